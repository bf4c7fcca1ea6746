//! `exsearch warmup export` and `import`: to and from the training file of the published code.
use crate::output::Output;
use exsearch_agent::Protocol;
use exsearch_corpus::{BadLines, read_questions};
use exsearch_run::{messages, read_jsonl, write_jsonl};
use exsearch_schema::Trajectory;
use exsearch_trainset::Weight;
use std::path::PathBuf;

/// Write trajectories in the published code's format: a JSON list of {"messages", "prob"}
///
/// `prob` is the weight, or 1. Trajectories without an answer or with weight 0 are left out and counted. The prompts are this
/// program's with the marks of the published code; select turns are not written. For other programs to train on: here training
/// takes the recorded tokens and never text.
#[derive(clap::Args)]
pub(super) struct ExportArgs {
    /// Trajectories, as `sample` and `run` leave them
    trajectories: PathBuf,
    /// Where the list goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Their weights, as `weigh` and `run` leave them
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The questions that they answer: the last turn becomes the gold answer, as in training
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// The marks of the turns
    #[arg(long, value_enum, default_value_t = Marks::Reference)]
    marks: Marks,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Marks {
    /// <QUERY>, <SEARCH>, <FACT> and <FINAL>, as the published code
    Reference,
    /// <THINK>, <SEARCH>, <RECORD> and <FINAL>, as the paper
    Paper,
    /// The dialogue as it took place, with whatever broke the protocol
    Recorded,
}

/// Read a file of the published code as gold trajectories: a JSON list of {"messages"}, or its inference output
///
/// The marks may be the published code's, the paper's or this program's. `prob` is not used. Chats without a fact for every query are
/// left out and counted, select turns too. The passages that were shown are not taken over: training shows what the index finds.
#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// The file to read
    messages: PathBuf,
    /// Where the gold trajectories go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn export(args: &ExportArgs, output: &Output) -> anyhow::Result<()> {
    let trajectories: Vec<Trajectory> = read_jsonl(&args.trajectories)?;
    let weights = args.weights.as_deref().map(read_jsonl::<Weight>).transpose()?;
    let questions = args.questions.as_deref().map(|path| read_questions(path, None, BadLines::Stop)).transpose()?;
    let questions = questions.as_ref().map(|questions| questions.rows.as_slice());
    let protocol = match args.marks {
        Marks::Reference => Some(Protocol::reference()),
        Marks::Paper => Some(Protocol::paper()),
        Marks::Recorded => None,
    };
    let (rows, stats) = messages::export(&trajectories, weights.as_deref(), questions, protocol.as_ref())?;
    messages::write_messages(&args.out, &rows)?;
    output.line(serde_json::to_string_pretty(&stats)?)
}

pub(super) fn import(args: &ImportArgs, output: &Output) -> anyhow::Result<()> {
    let (gold, stats) = messages::import(&args.messages)?;
    write_jsonl(&args.out, &gold)?;
    output.line(serde_json::to_string_pretty(&stats)?)
}
