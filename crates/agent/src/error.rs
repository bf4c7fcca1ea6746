//! What can be wrong with what an agent is made from. What goes wrong while it runs is data on the trajectory instead.
use thiserror::Error;

/// The agent could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    /// The protocol text is not TOML of the right shape.
    #[error("the protocol text cannot be read: {0}")]
    ProtocolSyntax(#[from] toml::de::Error),
    /// A template lacks a placeholder that it cannot do without.
    #[error("the protocol's `{field}` must hold {{{placeholder}}}")]
    MissingPlaceholder {
        /// The template's field.
        field: &'static str,
        /// What it lacks.
        placeholder: &'static str,
    },
    /// A template names a placeholder that is not filled there.
    #[error("the protocol's `{field}` holds {{{placeholder}}}, which means nothing there")]
    UnknownPlaceholder {
        /// The template's field.
        field: &'static str,
        /// The name in braces.
        placeholder: String,
    },
    /// A mark or ranking text could not be read back from a turn.
    #[error("the protocol's `{field}` = {mark:?} {reason}")]
    BadMark {
        /// The field.
        field: &'static str,
        /// Its text.
        mark: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A setting is out of range.
    #[error("the agent's setting `{field}` {reason}")]
    BadSetting {
        /// The setting.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
}
