//! `exsearch run`: a configuration to a run folder: warm-up, EM iterations, evaluations, report.
use crate::device::DeviceArgs;
use crate::output::{Output, duration, thousands};
use crate::progress::{Progress, Unit};
use crate::retriever;
use exsearch_run::{Event, Outcome, RunConfig};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Run the EM loop: warm up, then sample, weigh, train and evaluate, again and again
///
/// Everything is left in the run folder: the resolved configuration, trajectories, weights, training sets, checkpoints,
/// evaluations, a summary and a page with curves. Killed at any moment, the same command goes on and ends with the same
/// results. The index and the model must be there: see `exsearch index` and `exsearch model pull`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration, a TOML file; its paths are relative to it
    config: PathBuf,
    /// The run folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let mut config = RunConfig::open(&args.config)?;
    config.device = args.device.or(config.device);
    config.device.check()?;
    let outcome = execute(&config, &args.out, None, output)?;
    show(&outcome, &args.out, output)
}

/// Runs or continues the loop, showing what happens. `store` is the folder that several runs share parts in.
pub(crate) fn execute(
    config: &RunConfig,
    dir: &Path,
    store: Option<&Path>,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let retriever = retriever::open(&config.data.index)?;
    let mut view = View { output, bar: Progress::silent(), part: String::new(), is_new: false, since: Instant::now() };
    let outcome = exsearch_run::run(config, dir, store, &*retriever, &mut |event| view.show(event))?;
    view.end_part();
    Ok(outcome)
}

/// Prints the table and what can be done with the run.
pub(crate) fn show(outcome: &Outcome, dir: &Path, output: &Output) -> anyhow::Result<()> {
    output.text(format_args!("\n{}", outcome.table))?;
    output.line(format_args!("\nreport      {}", outcome.report.display()))?;
    if let Some(checkpoint) = &outcome.checkpoint {
        output.line(format_args!("checkpoint  {}", checkpoint.display()))?;
    }
    output.line(format_args!("run folder  {}", dir.display()))
}

/// One bar for the part under way, and a line for each part that ended.
struct View<'o> {
    output: &'o Output,
    bar: Progress,
    part: String,
    /// Whether the part's bar is yet to be made: only its first event tells how much there is to do.
    is_new: bool,
    since: Instant,
}

impl View<'_> {
    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Part { stage, part } => {
                self.end_part();
                self.part = format!("{stage}: {part}");
                self.is_new = true;
                self.since = Instant::now();
                self.bar = self.output.progress(&self.part, Unit::Nothing, 0);
            }
            Event::Sampling(progress) => self.count(progress.n_done, progress.n_total),
            Event::Step(step) => {
                self.count(step.step, step.n_steps);
                let skipped = if step.skipped { ", skipped" } else { "" };
                self.bar.set_what(format!("{}, loss {:.3}{skipped}", self.part, step.nll));
            }
            Event::Warmup(stats) => self.say(format_args!(
                "  {} gold trajectories, {} of {} gold passages found by the retriever, {} inserted",
                stats.n_gold,
                stats.replay.n_found,
                stats.replay.n_found + stats.replay.n_inserted + stats.replay.n_missing,
                stats.replay.n_inserted
            )),
            Event::Weighed(it, pack) => {
                self.end_part();
                self.say(format_args!(
                    "  bound {:.2} nats, effective sample size {:.2}, {} of {} questions without support, {} failed",
                    it.bound, it.mean_effective_sample_size, it.n_zero_support, it.n_questions, it.n_failed
                ));
                let n_examples = pack.n_dialogues + pack.n_selects;
                let n_tokens = thousands(pack.n_target_tokens as u64);
                let n_merged = pack.n_merged;
                self.say(format_args!(
                    "  {n_examples} training examples, {n_merged} equal ones merged into them, {n_tokens} tokens to learn"
                ));
            }
            Event::Evaluated { stage, set, report } => {
                self.end_part();
                let percent = |mean: f64| 100.0 * mean;
                let (em, f1) = (&report.scores.exact_match, &report.scores.f1);
                self.say(format_args!(
                    "{stage} on {set}: EM {:.1} [{:.1}, {:.1}], F1 {:.1}, {:.2} steps",
                    percent(em.mean),
                    percent(em.low),
                    percent(em.high),
                    percent(f1.mean),
                    report.effort.mean_steps
                ));
            }
            Event::Judged { stage, alarms } => {
                for alarm in alarms {
                    self.say(format_args!("alarm at {stage}: {alarm}"));
                }
            }
            Event::RolledBack { to } => self.say(format_args!("rolled back to {to}, the best on dev so far")),
            Event::Collapsed => self.say(format_args!("training has collapsed: stopped (health.on_collapse)")),
            Event::StoppedEarly { n_without_gain } => {
                self.say(format_args!("no better dev score in {n_without_gain} iterations: stopped"));
            }
        }
    }

    fn count(&mut self, n_done: usize, n_total: usize) {
        if std::mem::take(&mut self.is_new) {
            self.bar = self.output.progress(&self.part, Unit::Items, n_total as u64);
            if n_done > 1 {
                self.bar.resume_at(n_done as u64);
            }
        }
        self.bar.set(n_done as u64);
    }

    fn say(&self, line: std::fmt::Arguments<'_>) {
        self.bar.pause(|| self.output.note(line));
    }

    fn end_part(&mut self) {
        self.bar = Progress::silent();
        if !self.part.is_empty() {
            let part = std::mem::take(&mut self.part);
            self.output.note(format_args!("{part} ({})", duration(self.since.elapsed().as_secs_f64())));
        }
    }
}
