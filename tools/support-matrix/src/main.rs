//! The program `support-matrix`; see the library.

fn main() -> std::process::ExitCode {
    kit::cli::main(support_matrix::run)
}
