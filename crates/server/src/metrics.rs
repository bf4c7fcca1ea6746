//! What the server counts, and its text in Prometheus' exposition format 0.0.4.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of times, in seconds: 0.5 ms to 30 s.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of batch sizes, in queries.
const QUERIES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Everything that is counted, from the start of the server.
pub(crate) struct Metrics {
    /// By route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// By route.
    request_seconds: Mutex<BTreeMap<&'static str, Histogram>>,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) queued_queries: Gauge,
    pub(crate) batch_queries: Mutex<Histogram>,
    pub(crate) batch_seconds: Mutex<Histogram>,
    pub(crate) dropped_gone: AtomicU64,
    pub(crate) dropped_late: AtomicU64,
    pub(crate) empty_queries: AtomicU64,
    pub(crate) reloads: AtomicU64,
    pub(crate) failed_reloads: AtomicU64,
    pub(crate) generation: Gauge,
}

/// A number that goes up and down.
#[derive(Default)]
pub(crate) struct Gauge(AtomicI64);

/// Adds to a gauge until it is dropped.
pub(crate) struct Held<'a> {
    gauge: &'a Gauge,
    amount: i64,
}

pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// Values up to each bound and, last, those above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            request_seconds: Mutex::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: AtomicU64::default(),
            queued_queries: Gauge::default(),
            batch_queries: Mutex::new(Histogram::new(QUERIES)),
            batch_seconds: Mutex::new(Histogram::new(SECONDS)),
            dropped_gone: AtomicU64::default(),
            dropped_late: AtomicU64::default(),
            empty_queries: AtomicU64::default(),
            reloads: AtomicU64::default(),
            failed_reloads: AtomicU64::default(),
            generation: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that has its answer, or whose client went away (status 499, as nginx has it).
    pub(crate) fn answered(&self, route: &'static str, status: u16, time: Duration) {
        *lock(&self.requests).entry((route, status)).or_default() += 1;
        let mut seconds = lock(&self.request_seconds);
        seconds.entry(route).or_insert_with(|| Histogram::new(SECONDS)).add(time.as_secs_f64());
    }

    /// Counts a call of the retriever.
    pub(crate) fn searched(&self, n_queries: usize, time: Duration) {
        lock(&self.batch_queries).add(n_queries as f64);
        lock(&self.batch_seconds).add(time.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        head(&mut text, "requests_total", "counter", "Requests by route and status; 499: the client went away.");
        for ((route, status), count) in lock(&self.requests).iter() {
            line(&mut text, "requests_total", &format!("{{route=\"{route}\",status=\"{status}\"}}"), *count);
        }
        head(&mut text, "request_seconds", "histogram", "From a request's head to its answer's head.");
        for (route, seconds) in lock(&self.request_seconds).iter() {
            seconds.write(&mut text, "request_seconds", &format!("route=\"{route}\""));
        }
        head(&mut text, "batch_queries", "histogram", "Queries in a call of the retriever.");
        lock(&self.batch_queries).write(&mut text, "batch_queries", "");
        head(&mut text, "batch_seconds", "histogram", "Time of a call of the retriever.");
        lock(&self.batch_seconds).write(&mut text, "batch_seconds", "");
        for (name, gauge, help) in [
            ("requests_in_flight", &self.in_flight, "Requests without an answer yet."),
            ("connections_open", &self.connections, "Connections that are served."),
            ("queued_queries", &self.queued_queries, "Queries that wait or are being searched."),
            (
                "index_generation",
                &self.generation,
                "1 for the index opened first, one more with every reload; 0: none.",
            ),
        ] {
            head(&mut text, name, "gauge", help);
            line(&mut text, name, "", gauge.get());
        }
        head(
            &mut text,
            "dropped_queries_total",
            "counter",
            "Queries that were not searched, since nobody waited for them.",
        );
        for (reason, counter) in [("client_gone", &self.dropped_gone), ("deadline", &self.dropped_late)] {
            line(&mut text, "dropped_queries_total", &format!("{{reason=\"{reason}\"}}"), counter.load(Relaxed));
        }
        head(&mut text, "reloads_total", "counter", "Openings of the index, the first among them.");
        for (outcome, counter) in [("ok", &self.reloads), ("failed", &self.failed_reloads)] {
            line(&mut text, "reloads_total", &format!("{{outcome=\"{outcome}\"}}"), counter.load(Relaxed));
        }
        for (name, counter, help) in [
            ("empty_queries_total", &self.empty_queries, "Queries that hold nothing to search for."),
            ("connections_refused_total", &self.connections_refused, "Connections past the limit."),
        ] {
            head(&mut text, name, "counter", help);
            line(&mut text, name, "", counter.load(Relaxed));
        }
        text
    }
}

impl Gauge {
    /// Adds `amount` until the guard is dropped.
    pub(crate) fn hold(&self, amount: usize) -> Held<'_> {
        self.add(amount as i64);
        Held { gauge: self, amount: amount as i64 }
    }

    pub(crate) fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value as i64, Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.gauge.add(-self.amount);
    }
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Buckets are cumulative; `label` is empty or a `name="value"`.
    fn write(&self, text: &mut String, name: &str, label: &str) {
        let comma = if label.is_empty() { "" } else { "," };
        let mut count = 0;
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, in_bucket) in bounds.zip(&self.counts) {
            count += in_bucket;
            line(text, &format!("{name}_bucket"), &format!("{{{label}{comma}le=\"{bound}\"}}"), count);
        }
        let labels = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        line(text, &format!("{name}_sum"), &labels, self.sum);
        line(text, &format!("{name}_count"), &labels, count);
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP exsearch_{name} {help}\n# TYPE exsearch_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "exsearch_{name}{labels} {value}");
}

/// Counters stay usable when a thread that held them panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.answered("/retrieve", 200, Duration::from_micros(1_500));
        metrics.answered("/retrieve", 200, Duration::from_secs(60));
        metrics.answered("/retrieve", 503, Duration::ZERO);
        metrics.searched(3, Duration::from_millis(1));
        let held = metrics.in_flight.hold(2);
        let text = metrics.text();
        drop(held);
        for expect in [
            "# TYPE exsearch_requests_total counter\n",
            "exsearch_requests_total{route=\"/retrieve\",status=\"200\"} 2\n",
            "exsearch_request_seconds_bucket{route=\"/retrieve\",le=\"0.0005\"} 1\n",
            "exsearch_request_seconds_bucket{route=\"/retrieve\",le=\"0.002\"} 2\n",
            "exsearch_request_seconds_bucket{route=\"/retrieve\",le=\"30\"} 2\n",
            "exsearch_request_seconds_bucket{route=\"/retrieve\",le=\"+Inf\"} 3\n",
            "exsearch_request_seconds_sum{route=\"/retrieve\"} 60.0015\n",
            "exsearch_request_seconds_count{route=\"/retrieve\"} 3\n",
            "exsearch_batch_queries_bucket{le=\"2\"} 0\nexsearch_batch_queries_bucket{le=\"4\"} 1\n",
            "exsearch_batch_queries_sum 3\n",
            "exsearch_requests_in_flight 2\n",
        ] {
            assert!(text.contains(expect), "{expect} is not in\n{text}");
        }
        assert!(metrics.text().contains("exsearch_requests_in_flight 0\n"));
        // Every line is a comment, or a name with labels and a number.
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(name.starts_with("exsearch_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
