//! The lab's binary: everything is in the library.

fn main() -> std::process::ExitCode {
    kit::cli::main(lab::run)
}
