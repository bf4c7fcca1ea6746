//! Language models on disk and in memory: weights, tokenizer, chat template, decoder.
