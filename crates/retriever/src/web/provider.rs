//! What each provider wants to be asked and how it answers, after its published documentation.
use exsearch_http::{Client, HttpError, Request, Secret};
use exsearch_schema::{Hit, PassageId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashSet;
use std::fmt;

/// Who searches the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// A SearXNG server, or one that answers as it does, with JSON among its formats.
    Searxng,
    /// serper.dev, which asks Google.
    Serper,
    /// Brave's search API.
    Brave,
    /// tavily.com.
    Tavily,
}

/// What a query found.
pub(super) struct Found {
    pub(super) hits: Vec<Hit>,
    /// Whether asking again would give the same. Not where a request for more of the results failed.
    pub(super) is_whole: bool,
}

/// Requests for one query at most, each for the results behind those before: 5 x 10 is what people look at, 5 x 20 what Brave
/// gives of the 200 that it has.
const MAX_SHEETS: usize = 5;

/// The results of one request.
struct Sheet {
    pages: Vec<Page>,
    /// Whether there may be others behind them.
    has_next: bool,
}

/// A page as any of them gives it. Fields that may be missing are empty.
struct Page {
    url: Option<String>,
    title: Option<String>,
    snippet: Option<String>,
}

impl Provider {
    /// Where it is asked when no address is given.
    pub(super) fn public_url(self) -> Option<&'static str> {
        match self {
            Self::Searxng => None,
            Self::Serper => Some("https://google.serper.dev/search"),
            Self::Brave => Some("https://api.search.brave.com/res/v1/web/search"),
            Self::Tavily => Some("https://api.tavily.com/search"),
        }
    }

    pub(super) fn needs_key(self) -> bool {
        self != Self::Searxng
    }

    /// The results that it gives for one request at most.
    fn max_results(self) -> usize {
        match self {
            Self::Searxng => usize::MAX,
            Self::Serper => 100,
            Self::Brave | Self::Tavily => 20,
        }
    }

    /// At most `top_k` pages for a query. Where a request brings fewer, the next one is for those behind them, until one brings
    /// nothing new. Of what is found nothing is lost when a later request fails, as where the budget ends.
    pub(super) fn ask(
        self,
        client: &Client,
        url: &str,
        key: Option<&Secret>,
        (query, top_k): (&str, usize),
        before_attempt: impl Fn() -> Result<(), HttpError>,
    ) -> Result<Found, HttpError> {
        let n_results = top_k.min(self.max_results());
        let mut pages = Vec::new();
        let mut hits = Vec::new();
        for sheet_idx in 0..MAX_SHEETS {
            let sheet = match self.ask_sheet(client, url, key, (query, n_results, sheet_idx), &before_attempt) {
                Ok(sheet) => sheet,
                Err(error) if sheet_idx == 0 => return Err(error),
                Err(_) => return Ok(Found { hits, is_whole: false }),
            };
            pages.extend(sheet.pages);
            let n_before = hits.len();
            hits = to_hits(&pages, top_k);
            if hits.len() == top_k || hits.len() == n_before || !sheet.has_next {
                break;
            }
        }
        Ok(Found { hits, is_whole: true })
    }

    /// One request: for the `n_results` results behind those of the `sheet_idx` requests before.
    fn ask_sheet(
        self,
        client: &Client,
        url: &str,
        key: Option<&Secret>,
        (query, n_results, sheet_idx): (&str, usize, usize),
        before_attempt: impl Fn() -> Result<(), HttpError>,
    ) -> Result<Sheet, HttpError> {
        let (count, sheet, next_sheet) = (n_results.to_string(), sheet_idx.to_string(), (sheet_idx + 1).to_string());
        let is_first = sheet_idx == 0;
        let mut has_next = true;
        let pages: Vec<Page> = match self {
            Self::Searxng => {
                let base = url.trim_end_matches('/');
                let url = if base.ends_with("/search") { base.to_owned() } else { format!("{base}/search") };
                let parameters = [("q", query), ("format", "json"), ("pageno", next_sheet.as_str())];
                let parameters = &parameters[..if is_first { 2 } else { 3 }];
                let key = key.map(|key| ("authorization", "Bearer ", key));
                let request = Request { url: &url, parameters, body: None, key };
                client.json::<SearxngAnswer>(&request, before_attempt)?.results.into_iter().map(Page::from).collect()
            }
            Self::Serper => {
                let mut body = json!({ "q": query, "num": n_results });
                if !is_first {
                    body["page"] = json!(sheet_idx + 1);
                }
                let key = key.map(|key| ("x-api-key", "", key));
                let request = Request { url, parameters: &[], body: Some(body), key };
                client.json::<SerperAnswer>(&request, before_attempt)?.organic.into_iter().map(Page::from).collect()
            }
            Self::Brave => {
                let parameters = [
                    ("q", query),
                    ("count", count.as_str()),
                    ("text_decorations", "false"),
                    ("offset", sheet.as_str()),
                ];
                let parameters = &parameters[..if is_first { 3 } else { 4 }];
                let key = key.map(|key| ("x-subscription-token", "", key));
                let request = Request { url, parameters, body: None, key };
                let answer: BraveAnswer = client.json(&request, before_attempt)?;
                has_next = answer.query.is_some_and(|query| query.more_results_available);
                answer.web.map(|web| web.results).unwrap_or_default().into_iter().map(Page::from).collect()
            }
            Self::Tavily => {
                let body = json!({ "query": query, "max_results": n_results, "search_depth": "basic" });
                let key = key.map(|key| ("authorization", "Bearer ", key));
                let request = Request { url, parameters: &[], body: Some(body), key };
                has_next = false;
                client.json::<TavilyAnswer>(&request, before_attempt)?.results.into_iter().map(Page::from).collect()
            }
        };
        Ok(Sheet { pages, has_next })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Searxng => "SearXNG",
            Self::Serper => "Serper",
            Self::Brave => "Brave",
            Self::Tavily => "Tavily",
        })
    }
}

/// Pages in their order; those without an address, or with that of an earlier one, are left out.
fn to_hits(pages: &[Page], top_k: usize) -> Vec<Hit> {
    let mut seen = HashSet::new();
    let mut hits = Vec::new();
    for Page { url, title, snippet } in pages {
        let Some(url) = url.as_ref().filter(|url| !url.is_empty() && seen.insert(*url)) else { continue };
        if hits.len() == top_k {
            break;
        }
        let score = 1.0 / (hits.len() + 1) as f32;
        hits.push(Hit {
            id: PassageId(url.clone()),
            title: title.clone().unwrap_or_default(),
            text: snippet.clone().unwrap_or_default(),
            score,
        });
    }
    hits
}

/// docs.searxng.org, search API. An answer without results has an empty list; `pageno` counts from 1, and how many a page
/// has is the server's own.
#[derive(Deserialize)]
struct SearxngAnswer {
    results: Vec<ContentPage>,
}

/// docs.tavily.com, POST /search. There are no further pages of results.
#[derive(Deserialize)]
struct TavilyAnswer {
    results: Vec<ContentPage>,
}

#[derive(Deserialize)]
struct ContentPage {
    url: Option<String>,
    title: Option<String>,
    content: Option<String>,
}

/// serper.dev, POST /search; `page` counts from 1. What stands beside `organic` (answer boxes, related questions) is not of pages.
#[derive(Deserialize)]
struct SerperAnswer {
    #[serde(default)]
    organic: Vec<SerperPage>,
}

#[derive(Deserialize)]
struct SerperPage {
    link: Option<String>,
    title: Option<String>,
    snippet: Option<String>,
}

/// api-dashboard.search.brave.com, web search. `web` is missing when nothing was found; `offset` counts pages of `count`
/// results from 0, at most 9.
#[derive(Deserialize)]
struct BraveAnswer {
    query: Option<BraveQuery>,
    web: Option<BraveWeb>,
}

#[derive(Deserialize)]
struct BraveQuery {
    #[serde(default)]
    more_results_available: bool,
}

#[derive(Deserialize)]
struct BraveWeb {
    results: Vec<BravePage>,
}

#[derive(Deserialize)]
struct BravePage {
    url: Option<String>,
    title: Option<String>,
    description: Option<String>,
}

impl From<ContentPage> for Page {
    fn from(page: ContentPage) -> Self {
        Self { url: page.url, title: page.title, snippet: page.content }
    }
}

impl From<SerperPage> for Page {
    fn from(page: SerperPage) -> Self {
        Self { url: page.link, title: page.title, snippet: page.snippet }
    }
}

/// Brave's texts are HTML.
impl From<BravePage> for Page {
    fn from(page: BravePage) -> Self {
        let plain = |html: Option<String>| html.map(|html| plain_text(&html));
        Self { url: page.url, title: plain(page.title), snippet: plain(page.description) }
    }
}

/// HTML of one line without its tags and with the entities that escaping makes undone.
fn plain_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        // A sign that opens no tag stands for itself.
        let is_tag = tag[1..].starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/');
        match tag.find('>').filter(|_| is_tag) {
            Some(end) => rest = &tag[end + 1..],
            None => {
                text.push('<');
                rest = &tag[1..];
            }
        }
    }
    text.push_str(rest);
    // The ampersand last: "&amp;lt;" is the text "&lt;".
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text, |text, (entity, sign)| text.replace(entity, sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_text() {
        let check = |html: &str, expected: &str| assert_eq!(plain_text(html), expected);
        check("a <strong>b</strong> c", "a b c");
        check("Tom &amp; Jerry&#x27;s &lt;i&gt; &amp;lt;", "Tom & Jerry's <i> &lt;");
        check("1 < 2 and 3 > 2", "1 < 2 and 3 > 2");
        check("cut <a href", "cut <a href");
    }
}
