//! Studies, comparisons and reproductions of whole runs, with a tiny random model.
use crate::ask::tiny_model;
use crate::common::{Ran, SMALL, folder, run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A configuration for seconds. Warm-up teaches the random model nothing but that turns end.
pub(crate) fn base(dir: &Path) -> PathBuf {
    let path = dir.join("base.toml");
    let text = format!(
        "model = {:?}\nmax_tokens = 1200\n\
         [data]\nindex = {:?}\ntrain = \"{world}/train.jsonl\"\ndev = \"{world}/dev.jsonl\"\nn_dev = 3\n\
         test = [{{ name = \"test\", questions = \"{world}/test.jsonl\", limit = 5 }}]\n\
         warmup = \"{world}/warmup.jsonl\"\n\
         [agent]\ntop_k = 1\nmax_steps = 2\nmax_turn_tokens = 6\nmax_answer_tokens = 4\nmax_dialogue_tokens = 1100\n\
         [warmup]\nepochs = 1\n\
         [em]\niterations = 2\nquestions = 3\nsamples = 2\n\
         [train]\nepochs = 1\nlora_rank = 2\nbatch_size = 2\n",
        tiny_model(dir),
        SMALL.index(),
        world = SMALL.world().display(),
    );
    std::fs::write(&path, text).expect("written");
    path
}

/// The files of a run that its input alone decides, by name.
fn artifacts(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![run.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(run).expect("inside of it").display().to_string();
            // Those hold times, or the path of the run itself, as what trackers are told does.
            if path.is_dir() {
                if !["tensorboard", "track"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if !["lock", "timings.jsonl", "report.html", "summary.json"].contains(&name.as_str()) {
                files.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (artifacts(one), artifacts(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(*bytes == other[name], "{name} is the same");
    }
}

fn study(what: &str, paths: &[&Path]) -> Ran {
    run(&format!("study {what} --seeds 0,1 --quiet --config {{}} --out {{}}"), paths)
}

#[test]
fn variants_share_parts_and_come_to_what_they_come_to_alone() {
    let folder = folder();
    let (base, out) = (base(folder.path()), folder.path().join("study"));
    let only = "weights --only posterior,uniform,reference";
    let said = study(only, &[&base, &out]).ok();
    assert!(said.contains("## At the last stage") && said.contains("| reference |"), "{said}");
    assert_eq!(std::fs::read_to_string(out.join("study.md")).expect("written"), said);
    assert!(std::fs::read_to_string(out.join("study.svg")).expect("written").contains("uniform"));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("study.json")).expect("written")).expect("JSON");
    assert_eq!((&json["n_questions"], &json["variants"][1]["seeds"]), (&5.into(), &serde_json::json!([0, 1])));

    // Each variant alone, from the configuration that its folder holds.
    let run_of = |variant: &str, seed: u32| out.join(variant).join(format!("seed-{seed}"));
    for (variant, seed) in [("uniform", 0), ("reference", 1)] {
        let alone = folder.path().join(format!("{variant}-alone"));
        run("run {} --out {} --quiet", &[&run_of(variant, seed).join("config.toml"), &alone]).ok();
        assert_same(&run_of(variant, seed), &alone);
    }

    // What is before the weights was made once; the second iteration was not, since another model samples it.
    let times = |variant: &str| std::fs::read_to_string(run_of(variant, 0).join("timings.jsonl")).expect("written");
    let lines = |variant: &str, part: &str| times(variant).lines().filter(|line| line.contains(part)).count();
    assert_eq!((lines("posterior", "evaluating"), lines("uniform", "evaluating")), (8, 4));
    let bytes = |variant: &str, seed: u32, file: &str| std::fs::read(run_of(variant, seed).join(file)).expect(file);
    assert_eq!(bytes("posterior", 0, "iter-1/scores.jsonl"), bytes("reference", 0, "iter-1/scores.jsonl"));
    assert_ne!(bytes("posterior", 0, "iter-1/weights.jsonl"), bytes("reference", 0, "iter-1/weights.jsonl"));
    assert_ne!(bytes("posterior", 0, "iter-1/scores.jsonl"), bytes("posterior", 1, "iter-1/scores.jsonl"));

    // The same command again computes nothing and says the same.
    assert_eq!(study(only, &[&base, &out]).ok(), said);
    assert_eq!((lines("posterior", "evaluating"), lines("uniform", "evaluating")), (8, 4));
}

#[test]
fn numbers_of_samples_share_their_draws() {
    let folder = folder();
    let (base, out) = (base(folder.path()), folder.path().join("study"));
    let text = std::fs::read_to_string(&base).expect("written").replace("iterations = 2", "iterations = 1");
    std::fs::write(&base, text).expect("written");
    // 3 goes on from what 1 drew, 2 takes of what 3 drew.
    run("study samples --values 1,3,2 --seeds 0 --quiet --config {} --out {}", &[&base, &out]).ok();
    for n_samples in ["2", "3"] {
        let (shared, alone) = (out.join(n_samples).join("seed-0"), folder.path().join(n_samples));
        run("run {} --out {} --quiet", &[&shared.join("config.toml"), &alone]).ok();
        assert_same(&shared, &alone);
    }
}

#[test]
fn a_variant_that_fails_is_told_and_does_not_end_the_study() {
    let folder = folder();
    let (base, out, variants) = (base(folder.path()), folder.path().join("study"), folder.path().join("mine.toml"));
    let text = "[base]\nem.iterations = 0\n[greedy]\ndata.n_dev = 1000\n[typo]\nem.sampels = 3\n[cold]\nem.iterations = 0\n\
                data.n_warmup = 0\n";
    std::fs::write(&variants, text).expect("written");
    let ran = study("--variants {}", &[&variants, &base, &out]);
    ran.failed(&["4 of 8 runs failed", "1000 are needed", "did you mean `samples`?"]);
    for part in ["| base | ", "| greedy | - |", "| cold | ", "- typo, seed 1: ", "# Study: mine"] {
        assert!(ran.stdout.contains(part), "{part} is not in {}", ran.stdout);
    }
    assert!(!out.join("cold/seed-0/warmup").exists() && out.join("base/seed-0/warmup/checkpoint").is_dir());

    run("study weights --config {} --out {} --only x", &[&base, &out]).failed(&["no variant x"]);
    run("study weights --config {} --out {} --values 3", &[&base, &out]).failed(&["no --values"]);
    assert_eq!(run("study --config {} --out {}", &[&base, &out]).code, Some(2));
}

#[test]
fn a_run_is_compared_and_reproduced_from_its_manifest() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (base, out, again) = (base(folder.path()), path("run"), path("again"));
    run("run {} --out {} --quiet", &[&base, &out]).ok();

    let said = run("compare {} {} --stage untrained,last", &[&out, &out]).ok();
    assert!(said.contains("dev: untrained, then iteration 2") && said.contains("test: "), "{said}");
    let itself = run("compare {} {} --json", &[&out, &out]).ok();
    let line: serde_json::Value = serde_json::from_str(itself.lines().nth(1).expect("two sets")).expect("JSON");
    assert_eq!((&line["set"], &line["exact_match"]["p"]), (&"test".into(), &1.0.into()));
    run("compare {} {} --stage iter-9", &[&out, &out])
        .failed(&["no stage iter-9", "untrained, warmup, iter-1, iter-2"]);

    // From a copy of the manifest, with the questions in another place.
    let (manifest, moved) = (path("manifest.json"), path("moved"));
    std::fs::copy(out.join("manifest.json"), &manifest).expect("copied");
    std::fs::create_dir(&moved).expect("made");
    for name in ["train", "dev", "test", "warmup"] {
        let name = format!("{name}.jsonl");
        std::fs::copy(SMALL.world().join(&name), moved.join(&name)).expect("copied");
    }
    let said = run("reproduce {} --out {} --data {} --quiet", &[&manifest, &again, &moved]).ok();
    assert!(said.contains("everything agrees") && !said.contains("differs"), "{said}");
    run("reproduce {} --out {}", &[&out, &out]).failed(&["the run itself"]);

    // Other results, other data, no data.
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let mut changed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    changed["results"][2]["artifacts"][1][1] = "0".into();
    changed["results"][3]["scores"]["dev f1"] = 2.0.into();
    std::fs::write(&manifest, changed.to_string()).expect("written");
    let ran = run("reproduce {} --out {} --quiet", &[&manifest, &path("third")]);
    ran.failed(&["do not agree"]);
    assert!(ran.stdout.contains("first artifact that differs: iter-1/scores.jsonl"), "{ran:?}");
    assert!(ran.stdout.contains("200.0000") && ran.stdout.matches("  differs\n").count() == 1, "{ran:?}");
    std::fs::write(moved.join("dev.jsonl"), "{}").expect("written");
    std::fs::remove_file(moved.join("test.jsonl")).expect("removed");
    let refused = || run("reproduce {} --out {} --data {}", &[&manifest, &path("fourth"), &moved]);
    refused().failed(&["test.jsonl (test test) is missing", "--data"]);
    std::fs::copy(SMALL.world().join("test.jsonl"), moved.join("test.jsonl")).expect("copied");
    refused().failed(&["dev.jsonl (dev) is not the file that the run read"]);
    assert!(!path("fourth").exists());
}
