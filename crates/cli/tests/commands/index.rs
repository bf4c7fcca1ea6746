//! What can happen to `exsearch index`: bad lines, kills, other indexes in its place.
use crate::common::{SMALL, command, fill, folder, run};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

/// `n` short passages.
fn passages(n: usize) -> String {
    let mut text = "id\ttext\ttitle\n".to_owned();
    for id in 1..=n {
        let _ = writeln!(text, "{id}\tThe number of this passage is number{id}.\tPassage {id}");
    }
    text
}

#[track_caller]
fn finds(index: &Path, word: &str, id: &str) {
    let stdout = run(&format!("search {word} -k 1 --index {{}}"), &[index]).ok();
    assert!(stdout.contains(&format!("[{id}]")), "{word}: {stdout}");
}

#[test]
fn a_bad_line_stops_with_its_place_or_is_left_out() {
    let check = |line: &[u8], expect: &str| {
        let folder = folder();
        let (path, index) = (folder.path().join("bad.tsv"), folder.path().join("index"));
        let bytes = [passages(2).as_bytes(), line, b"\n9\tlast number9\tLast\n"].concat();
        std::fs::write(&path, bytes).expect("written");
        let ran = run("index {} --out {}", &[&path, &index]);
        ran.failed(&["bad.tsv, line 4: ", expect, "--skip-bad"]);
        assert_eq!(ran.stdout, "");
        run("search number1 --index {}", &[&index]).failed(&["not finished"]);

        let ran = run("index {} --out {} --skip-bad", &[&path, &index]);
        assert!(ran.stderr.contains("left out 1 lines") && ran.stderr.contains("line 4: "), "{ran:?}");
        assert!(ran.ok().contains(": 3 passages"), "the others are in");
        finds(&index, "number9", "9");
    };
    check(b"3\ttext without a title", "no title column");
    check(b"3\t\"text\tTitle", "a quote that is not closed");
    check(b"3\tcaf\xe9\tTitle", "not valid UTF-8");
    check(b"3\ttext\tTitle\tmore", "4 tab-separated fields");
    check(b"\ttext\tTitle", "`id` is empty");
}

/// A file that was mended is another file, in whose way the unfinished index of the old one stands.
#[test]
fn a_mended_file_takes_force_as_the_message_says() {
    let folder = folder();
    let (path, index) = (folder.path().join("passages.tsv"), folder.path().join("index"));
    std::fs::write(&path, "1\ta\n").expect("written");
    run("index {} --out {}", &[&path, &index]).failed(&["when the file is mended, give --force"]);
    std::fs::write(&path, passages(2)).expect("written");
    run("index {} --out {}", &[&path, &index]).failed(&["differs", "--force"]);
    assert!(run("index {} --out {} --force", &[&path, &index]).ok().contains(": 2 passages"));
    std::fs::write(&path, "").expect("written");
    run("index {} --out {} --force", &[&path, &index]).failed(&["holds no passages"]);
    finds(&index, "number2", "2");
    std::fs::write(&path, passages(2)).expect("written");
    let ran = run("index {} --out {} --no-stemming", &[&path, &index]);
    ran.failed(&["it is built with stemming", "--force"]);
}

#[test]
fn what_is_no_index_is_told_as_it_is() {
    let folder = folder();
    let (bytes, none) = (folder.path().join("bytes"), folder.path().join("none"));
    std::fs::write(&bytes, [0x80, 0xff, 0x0a, 0x00]).expect("written");
    let passages = SMALL.passages();
    let neither = "is not an index folder or a TOML file that describes a retriever";
    run("search x --index {}", &[&passages]).failed(&["passages.tsv", neither]);
    run("search x --index {}", &[&bytes]).failed(&["bytes", neither, "not text"]);
    run("index info {}", &[&passages]).failed(&["passages.tsv", neither]);
    run("search x --index {}", &[&none]).failed(&["none is not an index: it does not exist"]);
    run("search x --index {}", &[folder.path()]).failed(&["it has no manifest.json"]);
    run("serve --retriever --port 0 --index {}", &[&bytes]).failed(&["bytes", neither]);
    run("recall {} --index {}", &[&bytes, &SMALL.index()]).failed(&["bytes, line 1: "]);
    let toml = folder.path().join("web.toml");
    std::fs::write(
        &toml,
        "kind = 'web'\nprovider = 'searxng'\nurl = 'http://127.0.0.1:9'\nhttp = { max_attempts = 1 }\n",
    )
    .expect("written");
    let ran = run("search x --index {}", &[&toml]);
    ran.failed(&["could not be searched", "SearXNG", "no answer"]);
    assert_eq!(ran.stdout, "");
    run("search ?! --index {}", &[&SMALL.index()]).failed(&["give it words"]);
    std::fs::write(&toml, "kind = 'web'\nprovder = 'searxng'\n").expect("written");
    run("search x --index {}", &[&toml]).failed(&["web.toml", "unknown field", "provder"]);
}

#[test]
fn other_mistakes_name_the_file() {
    let folder = folder();
    let check = |name: &str, bytes: &[u8], expect: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let index = folder.path().join(format!("{name}.index"));
        run("index {} --out {}", &[&path, &index]).failed(expect);
    };
    check("twice.tsv", b"1\ta\tA\n2\tb\tB\n1\tc\tC\n", &["\"1\" occurs twice", "passages 1 and 3"]);
    check("passages.tsv.gz", &[0x1f, 0x8b, 8, 0], &["passages.tsv.gz", "gunzip"]);
    check("list.json", b"[{}]", &["list.json", "JSON list"]);
    check("empty.tsv", b"", &["empty.tsv holds no passages"]);
    check("header.tsv", b"id\ttext\ttitle\n", &["header.tsv holds no passages"]);
    check("bytes", &[0x80, 0xff, 0x0a, 0x00], &["bytes, line 1: ", "not valid UTF-8"]);
    run("index {} --out {}", &[&folder.path().join("none.tsv"), &folder.path().join("index")]).failed(&["none.tsv"]);
    run("index {} --out {}", &[&SMALL.passages(), &SMALL.world()]).failed(&["world", "is not a BM25 index"]);
}

#[test]
fn a_build_that_stopped_goes_on_where_it_was() {
    let folder = folder();
    let (path, index) = (folder.path().join("passages.tsv"), folder.path().join("index"));
    std::fs::write(&path, passages(2_500) + "no passage\n").expect("written");
    run("index {} --out {} --commit-every 1000", &[&path, &index]).failed(&["passages.tsv, line 2502"]);
    let ran = run("index {} --out {} --skip-bad", &[&path, &index]);
    assert!(ran.stderr.contains("going on behind passage 2,000"), "{ran:?}");
    assert!(ran.ok().contains(": 2,500 passages"));
    finds(&index, "number1500", "1500");
    finds(&index, "number2500", "2500");
}

#[test]
fn a_killed_build_goes_on_and_ends_as_if_it_had_not_been() {
    let folder = folder();
    let (path, index) = (folder.path().join("passages.tsv"), folder.path().join("index"));
    let n_passages = 60_000;
    std::fs::write(&path, passages(n_passages)).expect("written");
    let args = fill("index {} --out {} --commit-every 1000", &[&path, &index]);
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    // The commit's count of passages is in tantivy's meta.json; 59 more commits are to come.
    let committed = || {
        let data = std::fs::read_dir(&index).ok()?.flatten().find(|entry| entry.path().is_dir())?;
        let meta = std::fs::read_to_string(data.path().join("meta.json")).ok()?;
        meta.replace(' ', "").contains("\"payload\":\"").then_some(())
    };
    while committed().is_none() {
        assert!(child.try_wait().expect("a child").is_none(), "the build ended before its first commit was seen");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("it is gone");
    run("search number1 --index {}", &[&index]).failed(&["not finished", "run the same build again"]);

    let ran = crate::common::exsearch(&args);
    assert!(ran.stderr.contains("going on behind passage "), "{ran:?}");
    assert!(ran.ok().contains(": 60,000 passages"));
    let clean = folder.path().join("clean");
    run("index {} --out {}", &[&path, &clean]).ok();
    for query in ["number1", "number59999", "passage", "number30000"] {
        let hits = |index: &Path| run(&format!("search {query} -k 20 --json --index {{}}"), &[index]).ok();
        assert_eq!(hits(&index), hits(&clean), "{query}");
    }
}

#[test]
fn a_finished_index_is_kept_unless_it_is_to_be_replaced() {
    let folder = folder();
    let index = folder.path().join("index");
    let (ours, other) = (SMALL.passages(), folder.path().join("other.tsv"));
    run("index {} --out {}", &[&ours, &index]).ok();
    assert!(run("index {} --out {}", &[&ours, &index]).ok().contains("nothing to do"));
    run("index {} --out {} --no-stemming", &[&ours, &index])
        .failed(&["already holds an index that differs", "--force"]);
    std::fs::write(&other, passages(3)).expect("written");
    run("index {} --out {}", &[&other, &index]).failed(&["already holds an index that differs", "passages.tsv"]);
    run("index {} --out {} --force", &[&other, &index]).ok();
    finds(&index, "number3", "3");
}

#[test]
fn an_index_of_another_version_or_a_damaged_one_is_refused() {
    let folder = folder();
    let index = folder.path().join("index");
    run("index {} --out {}", &[&SMALL.passages(), &index]).ok();
    let manifest = index.join("manifest.json");
    let written = std::fs::read_to_string(&manifest).expect("a manifest");
    let other = written.replace("\"format_version\": 1", "\"format_version\": 99");
    assert_ne!(written, other);
    std::fs::write(&manifest, other).expect("written");
    for line in ["search born --index {}", "index {} --out {}"] {
        let paths: &[&Path] = if line.starts_with("search") { &[&index] } else { &[&SMALL.passages(), &index] };
        run(line, paths).failed(&["format version 99", "--force"]);
    }
    run("index {} --out {} --force", &[&SMALL.passages(), &index]).ok();
    run("search born --index {}", &[&index]).ok();

    std::fs::write(&manifest, "{").expect("written");
    run("search born --index {}", &[&index]).failed(&["damaged", "--force"]);
}
