//! The EM loop over all stages, its run folder, and the report.
