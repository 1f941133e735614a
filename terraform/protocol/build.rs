//! Compiles the protocol's messages with a compiler in Rust, so that no `protoc`
//! is needed to build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["tfplugin6.proto", "goplugin.proto", "health.proto"];
    let files = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        // Of the messages; some would be taken for examples in Rust.
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
