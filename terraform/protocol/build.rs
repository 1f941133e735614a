//! Compiles the protocol's messages with a compiler in Rust, so that no `protoc`
//! is needed to build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["tfplugin6.proto", "goplugin.proto", "health.proto"];
    let mut files = protox::compile(files, ["proto"])?;
    // Comments of the messages would be taken for examples in Rust.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .compile_fds(files)?;
    Ok(())
}
