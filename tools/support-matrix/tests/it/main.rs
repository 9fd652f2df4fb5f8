//! support-matrix on made run directories: what it keeps, what it says, and what it does not believe.

mod bad_input;
mod conclude;
mod golden;
mod page;
mod states;
mod world;
