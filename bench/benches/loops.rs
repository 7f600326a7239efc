//! How long the inner loops take: `cargo bench -p bench`. On a machine with other work count instructions instead.

use bench::loops::LOOPS;
use divan::Bencher;
use divan::counter::ItemsCount;

const ITEMS: u64 = 1_000;

fn main() {
    divan::main();
}

#[divan::bench(args = LOOPS.map(|each| each.name), sample_count = 50)]
#[allow(clippy::expect_used, reason = "who measures may be stopped")]
fn items(bencher: Bencher<'_, '_>, name: &str) {
    let each = LOOPS.iter().find(|each| each.name == name).expect("a loop of this name");
    let mut work = (each.prepare)().expect("the loop can be made ready");
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| work(ITEMS));
}
