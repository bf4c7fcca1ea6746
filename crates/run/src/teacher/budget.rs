//! Requests to a generator, counted, written down, and refused once they might cost more than was allowed.
//!
//! Tokens are counted as the dialogue has them, by the tokenizer of the model folder: a server that lays chats out in its own way, or
//! has another tokenizer, counts a little otherwise.
use super::Row;
use crate::error::RunError;
use crate::files::Journal;
use exsearch_schema::{GenerateError, GenerateRequest, Generation, Generator, RequestId};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::HashMap;

/// What may be spent, over all calls that go on with the same journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// Requests, each sent again after a failure counted once.
    pub max_requests: Option<u64>,
    /// Tokens of prompts and of what is written.
    pub max_tokens: Option<u64>,
    /// Money, in the unit of the prices.
    pub max_cost: Option<f64>,
    /// Of a million prompt tokens.
    pub prompt_price: f64,
    /// Of a million tokens that are written.
    pub completion_price: f64,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Requests.
    pub n_requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens that were written. Of requests under way at a kill none.
    pub completion_tokens: u64,
}

impl Budget {
    /// What it costs.
    pub fn cost(&self, spent: &Spent) -> f64 {
        let price = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
        price(spent.prompt_tokens, self.prompt_price) + price(spent.completion_tokens, self.completion_price)
    }

    fn allows(&self, spent: &Spent) -> bool {
        let n_tokens = spent.prompt_tokens + spent.completion_tokens;
        self.max_requests.is_none_or(|most| spent.n_requests <= most)
            && self.max_tokens.is_none_or(|most| n_tokens <= most)
            && self.max_cost.is_none_or(|most| self.cost(spent) <= most)
    }
}

impl Spent {
    /// Takes up a row of the journal.
    pub(super) fn take(&mut self, row: &Row) {
        match row {
            Row::Asked { prompt_tokens } => {
                self.n_requests += 1;
                self.prompt_tokens += prompt_tokens;
            }
            Row::Wrote { completion_tokens } => self.completion_tokens += completion_tokens,
            Row::Trajectory(_) => {}
        }
    }
}

/// A generator with a budget.
pub(super) struct Metered<'a> {
    inner: &'a mut dyn Generator,
    budget: &'a Budget,
    journal: &'a RefCell<Journal>,
    /// The spent and whether something was refused, as others may see it meanwhile.
    pub(super) state: &'a RefCell<Meter>,
    /// The most that each request under way may write.
    under_way: HashMap<RequestId, u64>,
    refused: Vec<RequestId>,
    n_refused: u64,
}

/// Where a budget stands.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) spent: Spent,
    /// A request was refused: no more are made.
    pub(super) is_used_up: bool,
    /// The journal could not be written.
    pub(super) failure: Option<RunError>,
}

impl<'a> Metered<'a> {
    pub(super) fn new(
        inner: &'a mut dyn Generator,
        budget: &'a Budget,
        journal: &'a RefCell<Journal>,
        state: &'a RefCell<Meter>,
    ) -> Self {
        Self { inner, budget, journal, state, under_way: HashMap::new(), refused: Vec::new(), n_refused: 0 }
    }

    fn note(&self, row: &Row) {
        let mut meter = self.state.borrow_mut();
        meter.spent.take(row);
        if let Err(error) = self.journal.borrow_mut().push(row) {
            meter.failure.get_or_insert(error);
        }
    }
}

impl Generator for Metered<'_> {
    fn submit(&mut self, request: GenerateRequest) -> RequestId {
        let (prompt_tokens, most) = (request.context.len() as u64, request.sampling.max_new_tokens as u64);
        let reserved: u64 = self.under_way.values().sum();
        let is_allowed = {
            let mut meter = self.state.borrow_mut();
            let mut at_most = meter.spent;
            at_most.n_requests += 1;
            at_most.prompt_tokens += prompt_tokens;
            at_most.completion_tokens += reserved + most;
            meter.is_used_up |= !self.budget.allows(&at_most);
            !meter.is_used_up && meter.failure.is_none()
        };
        if !is_allowed {
            // From the other end than the generator's own.
            let id = RequestId(u64::MAX - self.n_refused);
            self.n_refused += 1;
            self.refused.push(id);
            return id;
        }
        self.note(&Row::Asked { prompt_tokens });
        let id = self.inner.submit(request);
        self.under_way.insert(id, most);
        id
    }

    fn wait(&mut self) -> Vec<(RequestId, Result<Generation, GenerateError>)> {
        if !self.refused.is_empty() {
            let spent = |id| (id, Err(GenerateError::Failed("the budget is used up".to_owned())));
            return self.refused.drain(..).map(spent).collect();
        }
        let done = self.inner.wait();
        for (id, generated) in &done {
            self.under_way.remove(id);
            if let Ok(generation) = generated {
                self.note(&Row::Wrote { completion_tokens: generation.ids.len() as u64 });
            }
        }
        done
    }
}
