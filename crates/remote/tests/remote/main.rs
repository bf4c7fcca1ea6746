//! Turns and scores from scripted servers of every protocol, good ones and bad ones.
mod common;
mod llama_cpp;
mod openai;
mod trouble;
mod vllm;
