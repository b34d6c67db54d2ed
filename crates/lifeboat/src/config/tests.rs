//! Tests of the configuration: every message as people read it, kept as golden files (`UPDATE_GOLDEN=1` rewrites them).
