//! What follows an alarm during a run, with a tiny random model, in which no answer has support.
use crate::common::{folder, run};
use crate::study::base;
use std::path::Path;

#[test]
fn a_collapsed_stage_is_told_rolled_back_or_the_end() {
    let folder = folder();
    let base = base(folder.path());
    let text = std::fs::read_to_string(&base).expect("written").replace("questions = 3", "questions = 16");
    let start = |name: &str, on_collapse: &str, changes: &[(&str, &str)]| {
        let (config, out) = (folder.path().join(format!("{name}.toml")), folder.path().join(name));
        let text = changes.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
        let health = format!("[health]\nmax_zero_support_rate = 0.0\non_collapse = \"{on_collapse}\"\n");
        std::fs::write(&config, text + &health).expect("written");
        let ran = run("run {} --out {}", &[&config, &out]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        (out, ran)
    };
    let scores = |out: &Path| std::fs::read(out.join("iter-2/scores.jsonl")).expect("sampled");

    let (warned, ran) = start("warned", "warn", &[]);
    let alarm = "alarm at iteration 1: zero_support in sampling is 1.00, limit 0.00: gold answers are improbable";
    assert!(ran.stderr.contains(alarm) && ran.stdout.contains(alarm) && !ran.stderr.contains("rolled back"), "{ran:?}");
    let health = std::fs::read_to_string(warned.join("iter-1/health.json")).expect("written");
    assert!(health.contains("\"is_collapse\": true") && health.contains("look at scores.jsonl"), "{health}");
    assert!(std::fs::read_to_string(warned.join("summary.json")).expect("written").contains("zero_support"));

    let (stopped, ran) = start("stopped", "stop", &[]);
    assert!(ran.stderr.contains("collapsed: stopped") && !stopped.join("iter-2").exists(), "{ran:?}");

    // Whoever has looked goes on.
    start("stopped", "warn", &[]);
    assert!(scores(&stopped) == scores(&warned));

    // No stage is better on dev than the first: iteration 2 starts from the model without warm-up and iteration 1, as it does in a
    // run that has no warm-up.
    let (rolled_back, ran) = start("rolled-back", "rollback", &[]);
    assert!(ran.stderr.contains("rolled back to untrained"), "{ran:?}");
    let (bare, _) = start("bare", "rollback", &[("dev.jsonl\"\n", "dev.jsonl\"\nn_warmup = 0\n")]);
    assert!(!bare.join("warmup").exists() && scores(&bare) == scores(&rolled_back));
    assert!(scores(&warned) != scores(&rolled_back));

    // What is made again after it is the same.
    let checkpoint =
        || std::fs::read(rolled_back.join("iter-2/checkpoint/adapter_model.safetensors")).expect("trained");
    let before = (scores(&rolled_back), checkpoint());
    std::fs::remove_dir_all(rolled_back.join("iter-2")).expect("removed");
    start("rolled-back", "rollback", &[]);
    assert!(before == (scores(&rolled_back), checkpoint()));
}

#[test]
fn training_that_diverges_ends_the_run_or_goes_back_to_the_best_stage() {
    let folder = folder();
    let base = base(folder.path());
    let text = std::fs::read_to_string(&base).expect("written").replace("questions = 3", "questions = 16");
    let start = |name: &str, on_collapse: &str, changes: &[(&str, &str)]| {
        let (config, out) = (folder.path().join("config.toml"), folder.path().join(name));
        let text = changes.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
        std::fs::write(&config, format!("{text}[health]\non_collapse = \"{on_collapse}\"\n")).expect("written");
        (out.clone(), run("run {} --out {}", &[&config, &out]))
    };
    let diverging = [("[train]\nepochs = 1", "[train]\nepochs = 4\nlearning_rate = 1e30")];
    let (out, ran) = start("diverged", "warn", &diverging);
    assert!(ran.code == Some(1) && ran.stderr.contains("not finite; lower learning_rate"), "{ran:?}");
    let steps = std::fs::read_to_string(out.join("iter-1/checkpoint.steps.jsonl")).expect("left to be looked at");
    assert!(steps.contains("\"skipped\":true") && !out.join("iter-1/checkpoint").exists(), "{steps}");

    // Whoever has looked goes on with what was sampled.
    let (out, ran) = start("diverged", "stop", &diverging);
    assert!(ran.code == Some(0) && ran.stderr.contains("collapsed: stopped"), "{ran:?}");
    assert!(ran.stdout.contains("alarm at iteration 1: divergence in training is"), "{ran:?}");
    let read = |out: &Path, file: &str| std::fs::read_to_string(out.join(file)).expect(file);
    let answers = "eval-test/scores.jsonl";
    assert_eq!(read(&out, &format!("iter-1/{answers}")), read(&out, &format!("untrained/{answers}")));

    let (out, ran) = start("rolled-back", "rollback", &diverging);
    assert!(ran.code == Some(0) && ran.stderr.matches("rolled back to untrained").count() == 2, "{ran:?}");
    assert!(!out.join("iter-2/checkpoint").exists());
    assert_eq!(read(&out, &format!("iter-2/{answers}")), read(&out, &format!("untrained/{answers}")));

    // So it is where the last update is the one that breaks the model.
    let (out, ran) = start(
        "broken",
        "rollback",
        &[("epochs = 1\nlora_rank = 2\nbatch_size = 2", "epochs = 1\nlearning_rate = 1e30\nbatch_size = 99")],
    );
    assert!(ran.code == Some(0) && ran.stderr.contains("alarm at iteration 1: divergence"), "{ran:?}");
    assert!(!out.join("iter-1/checkpoint").exists(), "{ran:?}");
}
