//! Shows what `init()`, the `if __name__ == "__main__"` of Rust, keeps children from doing.

use multiproc::{Process, StartMethod};

fn hello(name: String) -> String {
    format!("hello from {name}, process {}", std::process::id())
}

fn main() -> anyhow::Result<()> {
    // In a program of yours `init()` comes first. What stands above it runs in every child too.
    println!("[{}] before init()", std::process::id());
    if let Err(error) = Process::spawn(hello, "nobody".to_string()) {
        println!("[{}] spawn before init(): {error}", std::process::id());
    }

    multiproc::init();

    // No child comes here, or each would start two more, without end.
    println!("[{}] after init()", std::process::id());
    for name in ["Alice", "Bob"] {
        let builder = Process::builder().name(name).start_method(StartMethod::Spawn);
        let greeting = builder.spawn(hello, name.to_string())?.join()?;
        println!("[{}] {greeting}", std::process::id());
    }
    println!("Each child ran what stands above init(), and nothing of what stands below.");
    Ok(())
}
