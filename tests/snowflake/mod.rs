//! The dbt project on Snowflake's dialect, against a double (see `double/__main__.py` for what that proves), and the
//! same rows as on DuckDB. pytest runs in one pinned environment, the double in another.

use crate::support::python::{pytest, python};
use crate::support::servers::or_skip;

/// Runs a file of this folder.
fn with_double(file: &str) {
    let Some(double) = or_skip(python("tests/snowflake/double")) else { return };
    let Some(mut command) = or_skip(python("tests/snowflake")) else { return };
    command.env("TICKMINT_DOUBLE_PYTHON", double.get_program());
    pytest(command, &format!("tests/snowflake/{file}.py"));
}

#[test]
fn the_double_refuses_what_snowflake_refuses() {
    with_double("test_double");
}

#[test]
fn both_dialects_give_the_same_rows() {
    with_double("test_both");
}
