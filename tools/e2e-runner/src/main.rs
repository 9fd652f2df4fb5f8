//! The program `e2e-runner`.

fn main() -> std::process::ExitCode {
    kit::cli::main(e2e_runner::run)
}
