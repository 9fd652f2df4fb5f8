//! `image-build`: see the library.

fn main() -> std::process::ExitCode {
    kit::cli::main(image_build::run)
}
