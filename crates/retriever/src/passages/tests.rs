use super::*;
use proptest::prelude::*;

fn passage(id: &str, title: &str, text: &str) -> Passage {
    Passage { id: id.into(), title: title.to_owned(), text: text.to_owned() }
}

fn write(dir: &Path, name: &str, passages: &[Passage]) -> PassageSegment {
    let mut writer = PassageWriter::open(dir, name, PassageMark::default()).expect("starts");
    passages.iter().for_each(|passage| writer.add(passage).expect("written"));
    writer.finish().expect("finished")
}

fn numbered(ids: std::ops::Range<u32>) -> Vec<Passage> {
    ids.map(|id| passage(&format!("p{id}"), &format!("title {}", id % 7), &"word ".repeat(id as usize % 11))).collect()
}

#[test]
fn passages_read_as_written_over_segments_and_are_found_by_id() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, new) = (numbered(0..300), numbered(300..350));
    let segments = [write(dir.path(), "s0", &old), write(dir.path(), "s1", &[]), write(dir.path(), "s2", &new)];
    let store = PassageStore::open(dir.path(), &segments).expect("opens");
    assert_eq!(store.n_passages(), 350);
    for (number, passage) in old.iter().chain(&new).enumerate() {
        assert_eq!(store.get(number as u32).expect("reads"), *passage);
        assert_eq!(store.find(&passage.id).expect("reads"), Some(number as u32));
    }
    assert_eq!(store.find(&"p350".into()).expect("reads"), None);
    store.verify().expect("all is well");
}

#[test]
fn a_writer_goes_on_behind_its_mark() {
    let dir = tempfile::tempdir().expect("a folder");
    let passages = numbered(0..40);
    let mut writer = PassageWriter::open(dir.path(), "s", PassageMark::default()).expect("starts");
    passages[..20].iter().for_each(|passage| writer.add(passage).expect("written"));
    let mark = writer.sync().expect("synced");
    passages[..9].iter().for_each(|passage| writer.add(passage).expect("written"));
    assert_eq!(writer.find_slowly(&"p19".into()).expect("reads"), Some(19));
    drop(writer);
    let mut writer = PassageWriter::open(dir.path(), "s", mark).expect("continues");
    assert_eq!(writer.get(19).expect("reads"), passages[19]);
    passages[20..].iter().for_each(|passage| writer.add(passage).expect("written"));
    let resumed = writer.finish().expect("finished");
    let other = tempfile::tempdir().expect("a folder");
    assert_eq!(resumed, write(other.path(), "s", &passages));
    for file in ["s.passages", "s.offsets", "s.ids"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).expect("it is there");
        assert!(read(dir.path()) == read(other.path()), "{file}");
    }
    let too_far = PassageMark { n_bytes: resumed.n_bytes + 1, ..mark };
    assert!(matches!(PassageWriter::open(dir.path(), "s", too_far), Err(Error::Damaged { .. })));
}

/// A copy of [`numbered`] passages of which every third was dropped.
fn with_dropped(dir: &Path, passages: &[Passage]) -> PassageSegment {
    let whole = PassageStore::open(dir, &[write(dir, "whole", passages)]).expect("opens");
    whole.copy_without(0, "s", |number| number % 3 == 0).expect("copies").expect("some are deleted")
}

#[test]
fn a_copy_without_the_deleted_keeps_numbers_and_drops_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let passages = numbered(0..40);
    let segment = with_dropped(dir.path(), &passages);
    assert_eq!((segment.n_passages, segment.n_dropped), (40, 14));
    // Behind another segment, so that its numbers are not those of the store.
    let segments = [write(dir.path(), "before", &numbered(100..105)), segment];
    let store = PassageStore::open(dir.path(), &segments).expect("opens");
    for (number, passage) in (5..).zip(&passages) {
        let is_dropped = (number - 5) % 3 == 0;
        assert_eq!(store.is_dropped(number), is_dropped);
        assert_eq!(store.find(&passage.id).expect("reads"), (!is_dropped).then_some(number));
        assert_eq!(store.get(number).ok().as_ref(), (!is_dropped).then_some(passage));
    }
    store.verify().expect("all is well");
    let again = store.copy_without(1, "t", |number| (number - 5) % 3 == 0).expect("looks");
    assert!(again.is_none() && !dir.path().join("t.passages").exists(), "they were dropped before");
    let rest = store.copy_without(1, "t", |number| number > 20).expect("copies").expect("some are left");
    let none = PassageStore::open(dir.path(), &[rest]).expect("opens").copy_without(0, "u", |_| true);
    let none = none.expect("copies").expect("some are left");
    assert_eq!((none.n_passages, none.n_dropped), (40, 40));
    PassageStore::open(dir.path(), &[none]).expect("opens").verify().expect("nothing is left to be damaged");
    let liar = PassageSegment { n_dropped: 41, ..segments[1].clone() };
    assert!(matches!(PassageStore::open(dir.path(), &[liar]), Err(Error::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_is_an_error_or_changes_nothing(file in 0usize..3, at in any::<prop::sample::Index>(), to: u8, drops: bool) {
        let dir = tempfile::tempdir().expect("a folder");
        let passages = numbered(0..30);
        let segment =
            if drops { with_dropped(dir.path(), &passages) } else { write(dir.path(), "s", &passages) };
        let path = dir.path().join(["s.passages", "s.offsets", "s.ids"][file]);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let at = at.index(bytes.len());
        let is_changed = bytes[at] != to;
        bytes[at] = to;
        std::fs::write(&path, bytes).expect("written");
        let verified = PassageStore::open(dir.path(), &[segment]).and_then(|store| {
            // Whatever is read is what was written.
            for (number, passage) in passages.iter().enumerate() {
                if let Ok(read) = store.get(number as u32) {
                    assert_eq!(read, *passage);
                }
            }
            store.verify()
        });
        prop_assert_eq!(verified.is_err(), is_changed);
    }

    #[test]
    fn interpolation_finds_the_first_not_below(mut values in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..4], 0..50), wanted in prop_oneof![any::<u64>(), 0u64..5]) {
        values.sort_unstable();
        let expected = values.partition_point(|value| *value < wanted);
        prop_assert_eq!(interpolate(values.len(), wanted, |at| values[at]), expected);
    }
}
