//! The program: see the library.

fn main() -> std::process::ExitCode {
    kit::cli::main(cleanup::run)
}
