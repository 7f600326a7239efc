//! Runs one of the inner loops so many times, for callgrind: `instructions LOOP COUNT`; without arguments it names them.

use bench::loops::LOOPS;
use std::error::Error;

#[allow(clippy::print_stdout, reason = "this is the program that the script reads")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        LOOPS.iter().for_each(|each| println!("{}\t{}", each.name, each.item));
        return Ok(());
    };
    let found = LOOPS.iter().find(|each| each.name == name).ok_or("there is no such loop")?;
    let count = arguments.next().ok_or("how many?")?.parse()?;
    (found.prepare)()?(count);
    Ok(())
}
