//! The program; all of it is in the library.

fn main() -> std::process::ExitCode {
    kit::cli::main(cluster_install::run)
}
