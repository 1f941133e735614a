//! `meshctl` as the next version will be: its server speaks a level more. For tests of
//! servers of two versions in one cluster; built only with the feature `tomorrow`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    meshctl::main()
}
