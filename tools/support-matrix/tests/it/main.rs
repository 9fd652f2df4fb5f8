//! support-matrix on made run directories: what it keeps, what it says, and what it does not believe.

mod bad_input;
mod browser;
mod conclude;
mod evidence;
mod exchange;
mod golden;
mod index;
mod page;
mod policy;
mod questions;
mod retention;
mod site;
mod states;
#[path = "../../../lib/oci/tests/support/mod.rs"]
mod support;
mod webdriver;
mod world;
mod year;
