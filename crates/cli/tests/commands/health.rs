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
