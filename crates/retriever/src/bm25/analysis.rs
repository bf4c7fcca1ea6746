//! From text to words, and the fields of the index: the same for passages and queries.
//!
//! Measured on the 55,532-passage development corpus, answer-recall@5 / all-gold@5 in percent, dev questions
//! (`examples/measure_bm25.rs` prints the last row):
//!
//! | index | HotpotQA | MuSiQue | 2Wiki | queries/s |
//! |---|---|---|---|---|
//! | title + text, words as they are | 59.3 / 44.6 | 26.0 / 5.2 | 56.8 / 38.9 | 1,712 |
//! | and stemmed, accents folded | 62.0 / 46.4 | 28.1 / 6.2 | 56.8 / 40.0 | 1,523 |
//! | title and text as two fields, equal weights | 57.5 / 46.1 | 30.2 / 8.3 | 61.1 / 43.2 | 978 |
//! | title twice in one field | 63.0 / 49.4 | 29.2 / 4.2 | 60.0 / 41.1 | 1,500 |
//! | and stop words of the query left out | 60.8 / 48.8 | 31.2 / 8.3 | 61.1 / 40.0 | 2,743 |
//! | and each word of the query counted once | 61.4 / 49.4 | 34.4 / 8.3 | 61.1 / 41.1 | 3,163 |
//!
//! What it does not do: cut words in scripts without spaces (a run of Chinese characters is one word).
use super::manifest::Analysis;
use exsearch_schema::{Passage, PassageId};
use tantivy::TantivyDocument;
use tantivy::schema::{FAST, Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value};
use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, TextAnalyzer,
};

/// Longer words (in bytes) are neither indexed nor searched: base64, URLs.
const MAX_WORD_BYTES: usize = 40;

/// The name under which the index knows its analyzer.
pub(crate) const ANALYZER: &str = "exsearch";

/// English words that say how a question is built, not what it asks for. They stay in the index; a query leaves them out
/// unless it has no other word, so "The Who" finds the band.
const STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "did", "do", "does", "for", "from", "had", "has", "have",
    "how", "if", "in", "into", "is", "it", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then",
    "there", "these", "they", "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom", "whose",
    "will", "with",
];

/// The fields of a passage in the index.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    /// Searched: the title twice, then the text.
    pub(crate) words: Field,
    /// The id as one word.
    pub(crate) id: Field,
    /// The position in the corpus, from 0.
    pub(crate) ordinal: Field,
    title: Field,
    text: Field,
}

pub(crate) const ORDINAL: &str = "ordinal";

pub(crate) fn schema() -> (Schema, Fields) {
    let indexing = TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
    let mut builder = Schema::builder();
    let fields = Fields {
        words: builder.add_text_field("words", TextOptions::default().set_indexing_options(indexing)),
        id: builder.add_text_field("id", STRING | STORED),
        ordinal: builder.add_u64_field(ORDINAL, FAST),
        title: builder.add_text_field("title", STORED),
        text: builder.add_text_field("text", STORED),
    };
    (builder.build(), fields)
}

pub(crate) fn analyzer(analysis: &Analysis) -> TextAnalyzer {
    let words = SimpleTokenizer::default();
    let folded = TextAnalyzer::builder(words)
        .filter(RemoveLongFilter::limit(MAX_WORD_BYTES + 1))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter);
    if analysis.stemming { folded.filter(Stemmer::new(Language::English)).build() } else { folded.build() }
}

pub(crate) fn document(fields: &Fields, passage: &Passage, ordinal: u64) -> TantivyDocument {
    let Passage { id, title, text } = passage;
    let mut document = TantivyDocument::default();
    document.add_text(fields.words, format!("{title} {title} {text}"));
    document.add_text(fields.id, &id.0);
    document.add_u64(fields.ordinal, ordinal);
    document.add_text(fields.title, title);
    document.add_text(fields.text, text);
    document
}

/// The passage that [`document`] stored; `None` when a field is missing.
pub(crate) fn passage(fields: &Fields, document: &TantivyDocument) -> Option<Passage> {
    let text = |field| document.get_first(field)?.as_str().map(str::to_owned);
    Some(Passage { id: PassageId(text(fields.id)?), title: text(fields.title)?, text: text(fields.text)? })
}

/// The first `limit` distinct words of a query that are no stop words; when it has none, its stop words.
pub(crate) fn query_words(analyzer: &TextAnalyzer, stops: &StopWords, query: &str, limit: usize) -> Vec<String> {
    let mut analyzer = analyzer.clone();
    let (mut content, mut stop) = (Vec::new(), Vec::new());
    let mut tokens = analyzer.token_stream(query);
    while tokens.advance() && content.len() < limit {
        let token = tokens.token();
        let is_stop = stops.contains(&query[token.offset_from..token.offset_to]);
        let words = if is_stop { &mut stop } else { &mut content };
        // At most `limit` words are compared, which is cheaper than hashing them.
        if words.len() < limit && !words.contains(&token.text) {
            words.push(token.text.clone());
        }
    }
    if content.is_empty() { stop } else { content }
}

/// The stop words as a query may spell them.
pub(crate) struct StopWords(std::collections::HashSet<&'static str>);

impl StopWords {
    pub(crate) fn english() -> Self {
        Self(STOP_WORDS.iter().copied().collect())
    }

    fn contains(&self, word: &str) -> bool {
        self.0.contains(word.to_lowercase().as_str())
    }
}
