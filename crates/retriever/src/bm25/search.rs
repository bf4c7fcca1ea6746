//! Searches a complete index: plain text in, ranked passages out.
//!
//! tantivy's block-max WAND walks the postings and skips what cannot reach the top. Three things it leaves to chance are
//! settled here, so that results are a function of the corpus alone, however it is spread over segments:
//! 1. It adds up a passage's scores in an order that depends on the postings, so sums differ in the last bits. Every
//!    passage it proposes is scored again, word by word in the order of the query.
//! 2. It breaks ties by its own document numbers. Here they break by the position in the corpus.
//! 3. Its block maxima are found with the segment's average length instead of the corpus's (see [`Segment::slack`]).
use super::analysis::{ANALYZER, Fields, ORDINAL, StopWords, analyzer, passage, query_words, schema};
use super::manifest::{FORMAT, Manifest};
use super::read_only::ReadOnly;
use crate::Error;
use crate::error::library_error;
use crate::folder::Folder;
use exsearch_schema::{Hit, Passage, PassageId, RetrieveError, Retriever};
use rayon::prelude::*;
use std::collections::BinaryHeap;
use std::path::Path;
use tantivy::columnar::Column;
use tantivy::directory::MmapDirectory;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::{Postings, SegmentPostings};
use tantivy::query::{Bm25StatisticsProvider, Bm25Weight, BooleanQuery, EnableScoring, Occur, Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{
    DocAddress, DocId, DocSet, Index, ReloadPolicy, Score, Searcher, SegmentReader, TantivyDocument, TantivyError, Term,
};

/// A query is cut after this many distinct words, stop words not counted: no length of query makes a search slow.
pub const MAX_QUERY_TERMS: usize = 64;

/// Sums of 64 f32 differ by at most 64 * 2^-24 = 4e-6 of their value with the order of their terms.
const ROUNDING: Score = 1e-5;

/// Blocks of stored passages that stay decompressed: 64 x 16 KB = 1 MB a segment.
const N_CACHED_BLOCKS: usize = 64;

/// A complete BM25 index, open for searching by any number of threads.
pub struct Bm25Index {
    folder: Folder,
    manifest: Manifest,
    searcher: Searcher,
    segments: Vec<Segment>,
    fields: Fields,
    analyzer: TextAnalyzer,
    stop_words: StopWords,
    /// The average number of words of a passage.
    average_length: Score,
}

impl Bm25Index {
    /// Opens the index in a folder. Looks at the sizes of its files, not at their content.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let folder = Folder::new(dir, &FORMAT);
        let manifest: Manifest = folder.manifest()?.ok_or_else(|| folder.incomplete())?;
        match Self::open_data(Folder::new(dir, &FORMAT), manifest.clone()) {
            Ok(index) => Ok(index),
            // A rebuild may have replaced the index, and removed the old data, since the manifest was read.
            Err(error) => match folder.manifest::<Manifest>()? {
                Some(newer) if newer != manifest => Self::open_data(folder, newer),
                _ => Err(error),
            },
        }
    }

    /// What the index says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of passages in the index.
    pub fn n_passages(&self) -> u64 {
        self.manifest.n_passages
    }

    /// The passage with an id, or `None` when the corpus has none.
    pub fn get(&self, id: &PassageId) -> Result<Option<Passage>, Error> {
        let found = self.get_many(std::slice::from_ref(id))?;
        Ok(found.into_iter().next().expect("one result an id"))
    }

    /// Reads the whole index and errors when it is not what was written.
    pub fn verify(&self) -> Result<(), Error> {
        let damaged = unless_damaged(|| self.searcher.index().validate_checksum());
        let damaged = damaged.map_err(|reason| self.folder.damaged(reason.to_owned()))?;
        let damaged = damaged.map_err(|error| library_error(&self.folder.dir, error))?;
        match damaged.iter().min() {
            None => Ok(()),
            Some(file) => Err(self.folder.damaged(format!("{} has another checksum", file.display()))),
        }
    }

    /// The passages with the ids, in their order; `None` for those that the corpus does not have. Reads neighbours together.
    pub fn get_many(&self, ids: &[PassageId]) -> Result<Vec<Option<Passage>>, Error> {
        unless_damaged(|| self.look_up(ids)).unwrap_or_else(|reason| Err(self.folder.damaged(reason.to_owned())))
    }

    fn look_up(&self, ids: &[PassageId]) -> Result<Vec<Option<Passage>>, Error> {
        let library = |error| library_error(&self.folder.dir, error);
        let mut addresses = Vec::with_capacity(ids.len());
        for (id_idx, id) in ids.iter().enumerate() {
            if let Some(address) = find_id(&self.searcher, &self.fields, id).map_err(library)? {
                addresses.push((address, id_idx));
            }
        }
        addresses.sort_unstable();
        let mut passages = vec![None; ids.len()];
        for (address, id_idx) in addresses {
            passages[id_idx] = Some(self.stored(address).map_err(library)?);
        }
        Ok(passages)
    }

    fn open_data(folder: Folder, manifest: Manifest) -> Result<Self, Error> {
        let dir = folder.dir.clone();
        unless_damaged(|| Self::open_files(folder, manifest))
            .unwrap_or_else(|reason| Err(Error::Damaged { dir, reason: reason.to_owned() }))
    }

    fn open_files(folder: Folder, manifest: Manifest) -> Result<Self, Error> {
        folder.check_files(&manifest.data, &manifest.files)?;
        let library = |error| library_error(&folder.dir, error);
        let files = MmapDirectory::open(folder.data(&manifest.data)).map_err(TantivyError::from);
        let index = files.and_then(|files| Index::open(ReadOnly(files))).map_err(library)?;
        let (schema, fields) = schema();
        if index.schema() != schema {
            return Err(folder.damaged("its fields are not those of a BM25 index".to_owned()));
        }
        let analyzer = analyzer(&manifest.config.analysis);
        index.tokenizers().register(ANALYZER, analyzer.clone());
        let reader =
            index.reader_builder().reload_policy(ReloadPolicy::Manual).doc_store_cache_num_blocks(N_CACHED_BLOCKS);
        let searcher = reader.try_into().map_err(library)?.searcher();
        if searcher.num_docs() != manifest.n_passages {
            let (found, expected) = (searcher.num_docs(), manifest.n_passages);
            return Err(folder.damaged(format!("it holds {found} passages instead of {expected}")));
        }
        let n_words = searcher.total_num_tokens(fields.words).map_err(library)?;
        // As tantivy computes it, rounding included.
        let average_length = n_words as Score / manifest.n_passages as Score;
        let mut segments = Vec::new();
        for reader in searcher.segment_readers() {
            segments.push(Segment::open(reader, &fields, average_length).map_err(library)?);
        }
        let stop_words = StopWords::english();
        Ok(Self { folder, manifest, searcher, segments, fields, analyzer, stop_words, average_length })
    }

    fn search_one(&self, query: &str, top_k: usize) -> Result<Vec<Hit>, RetrieveError> {
        let words = query_words(&self.analyzer, &self.stop_words, query, MAX_QUERY_TERMS);
        if words.is_empty() {
            return Err(RetrieveError::EmptyQuery);
        }
        let failed = |error: TantivyError| RetrieveError::Failed(format!("{}: {error}", self.folder.dir.display()));
        let find = || {
            let mut hits = Vec::new();
            for candidate in self.rank(&words, top_k)? {
                let Passage { id, title, text } = self.stored(candidate.address)?;
                hits.push(Hit { id, title, text, score: candidate.score });
            }
            Ok(hits)
        };
        let damaged = |reason| RetrieveError::Failed(format!("{}: {reason}", self.folder.dir.display()));
        unless_damaged(find).map_err(damaged)?.map_err(failed)
    }

    /// The best `top_k` passages, best first.
    fn rank(&self, words: &[String], top_k: usize) -> Result<Vec<Candidate>, TantivyError> {
        let top_k = top_k.min(usize::try_from(self.n_passages()).unwrap_or(usize::MAX));
        let mut terms = Vec::with_capacity(words.len());
        for word in words {
            let term = Term::from_field_text(self.fields.words, word);
            let doc_freq = self.searcher.doc_freq(&term)?;
            if doc_freq > 0 {
                let n_passages = self.n_passages();
                let weight = Bm25Weight::for_one_term_without_explain(doc_freq, n_passages, self.average_length);
                terms.push((term, weight));
            }
        }
        if terms.is_empty() || top_k == 0 {
            return Ok(Vec::new());
        }
        let clauses = terms.iter().map(|(term, _)| clause(term)).collect();
        let weight = BooleanQuery::new(clauses).weight(EnableScoring::enabled_from_searcher(&self.searcher))?;
        let mut top = Top { best: BinaryHeap::new(), top_k };
        for (segment_ord, segment) in self.segments.iter().enumerate() {
            let reader = self.searcher.segment_reader(segment_ord as u32);
            let mut scorer = SegmentScorer::new(reader, segment, &self.fields, &terms)?;
            weight.for_each_pruning(top.threshold() / segment.slack, reader, &mut |doc_id, _| {
                let address = DocAddress { segment_ord: segment_ord as u32, doc_id };
                let ordinal = segment.ordinals.first(doc_id).expect("every passage has an ordinal");
                top.offer(Candidate { score: scorer.score(doc_id), ordinal, address });
                top.threshold() / segment.slack
            })?;
        }
        // Worst first is the heap's order of greatness, so ascending is best first.
        Ok(top.best.into_sorted_vec())
    }

    fn stored(&self, address: DocAddress) -> Result<Passage, TantivyError> {
        let document: TantivyDocument = self.searcher.doc(address)?;
        passage(&self.fields, &document)
            .ok_or_else(|| TantivyError::InternalError("a stored passage lacks a field".to_owned()))
    }
}

impl Retriever for Bm25Index {
    /// Queries are plain text: no character has a meaning. Words are searched after case, accents and English endings are
    /// taken off; words that the corpus lacks count for nothing. Batches use rayon's threads.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        match queries {
            [query] => vec![self.search_one(query, top_k)],
            queries => queries.par_iter().map(|query| self.search_one(query, top_k)).collect(),
        }
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.get(id).map_err(|error| RetrieveError::Failed(error.to_string()))
    }
}

/// What tantivy makes of its files. It trusts their bytes and panics where they are others, which reads as a bug of this program
/// and is damage: files of another length are noticed before, others by [`Bm25Index::verify`] alone, which reads them all.
fn unless_damaged<T>(work: impl FnOnce() -> T) -> Result<T, &'static str> {
    let reason = "the search library cannot read it; look at it with `exsearch index verify`";
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| reason)
}

/// Where the passage with an id is.
pub(crate) fn find_id(
    searcher: &Searcher,
    fields: &Fields,
    id: &PassageId,
) -> Result<Option<DocAddress>, TantivyError> {
    let term = Term::from_field_text(fields.id, &id.0);
    for (segment_ord, reader) in searcher.segment_readers().iter().enumerate() {
        let postings = reader.inverted_index(fields.id)?.read_postings(&term, IndexRecordOption::Basic)?;
        if let Some(postings) = postings {
            return Ok(Some(DocAddress { segment_ord: segment_ord as u32, doc_id: postings.doc() }));
        }
    }
    Ok(None)
}

fn clause(term: &Term) -> (Occur, Box<dyn Query>) {
    let query = TermQuery::new(term.clone(), IndexRecordOption::WithFreqs);
    (Occur::Should, Box::new(query))
}

/// What is kept open of one of tantivy's segments.
struct Segment {
    /// Position in the corpus by document number.
    ordinals: Column<u64>,
    lengths: FieldNormReader,
    /// By how much the true maximum of a block may exceed the one that WAND believes, at least 1.
    ///
    /// A block's maximum is stored as the (tf, len) of the passage that is best under the SEGMENT's average length a_s, and
    /// scored under the corpus's a. Let f(a) = tf / (tf + k1 (1 - b + b len / a)) and r = max(a / a_s, a_s / a). Between a_s
    /// and a every f changes in the same direction, by a factor of at most r. So for the stored passage A and any other B,
    /// f_B(a) <= r f_A(a) when f grows (f_B(a) <= r f_B(a_s) <= r f_A(a_s) <= r f_A(a)), and likewise when it shrinks.
    slack: Score,
}

impl Segment {
    fn open(reader: &SegmentReader, fields: &Fields, average_length: Score) -> Result<Self, TantivyError> {
        let n_words = reader.inverted_index(fields.words)?.total_num_tokens();
        let segment_average = n_words as Score / reader.max_doc() as Score;
        // A segment without words has no postings to prune.
        let ratio = if n_words == 0 { 1.0 } else { average_length / segment_average };
        Ok(Self {
            ordinals: reader.fast_fields().u64(ORDINAL)?,
            lengths: reader.get_fieldnorms_reader(fields.words)?,
            slack: ratio.max(1.0 / ratio) * (1.0 + ROUNDING),
        })
    }
}

/// Scores documents of one segment in the order of the query's words. Documents must come in rising order.
struct SegmentScorer<'a> {
    lengths: &'a FieldNormReader,
    words: Vec<(SegmentPostings, &'a Bm25Weight)>,
}

impl<'a> SegmentScorer<'a> {
    fn new(
        reader: &SegmentReader,
        segment: &'a Segment,
        fields: &Fields,
        terms: &'a [(Term, Bm25Weight)],
    ) -> Result<Self, TantivyError> {
        let inverted_index = reader.inverted_index(fields.words)?;
        let mut words = Vec::with_capacity(terms.len());
        for (term, weight) in terms {
            if let Some(postings) = inverted_index.read_postings(term, IndexRecordOption::WithFreqs)? {
                words.push((postings, weight));
            }
        }
        Ok(Self { lengths: &segment.lengths, words })
    }

    fn score(&mut self, doc_id: DocId) -> Score {
        let length_id = self.lengths.fieldnorm_id(doc_id);
        let mut score = 0.0;
        for (postings, weight) in &mut self.words {
            if postings.doc() < doc_id {
                postings.seek(doc_id);
            }
            if postings.doc() == doc_id {
                score += weight.score(length_id, postings.term_freq());
            }
        }
        score
    }
}

/// A passage that may be among the best.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: Score,
    ordinal: u64,
    address: DocAddress,
}

/// The greater candidate is the worse one: lower score, then later in the corpus.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.score.total_cmp(&self.score).then(self.ordinal.cmp(&other.ordinal))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The best candidates so far, the worst of them on top of the heap.
struct Top {
    best: BinaryHeap<Candidate>,
    top_k: usize,
}

impl Top {
    fn offer(&mut self, candidate: Candidate) {
        if self.best.len() < self.top_k {
            self.best.push(candidate);
        } else if let Some(mut worst) = self.best.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// A passage must score above this to be looked at: a little less than the worst of the best, so that ties are seen.
    fn threshold(&self) -> Score {
        match self.best.peek() {
            // The subtraction lets ties at 0 through: the idf of a word of every passage rounds to 0 in a large corpus.
            Some(worst) if self.best.len() == self.top_k => worst.score * (1.0 - ROUNDING) - Score::MIN_POSITIVE,
            _ => Score::MIN,
        }
    }
}
