//! The end-to-end tests. Each module is one question that is put to the whole service; `cargo test -p tests --test main NAME`
//! runs those whose names hold NAME. Settings: `FHIR_TAIL_TEST_POSTGRES_BIN` (folders of Postgres programs, with colons
//! between them; every test that depends on the version runs against each), `FHIR_TAIL_TEST_SECONDS` and
//! `FHIR_TAIL_TEST_SEED` for the tests with random writers and readers, `FHIR_TAIL_TEST_KEEP` to keep the folders.

mod accounts;
mod browser;
mod chaos;
mod check;
mod clients;
mod clock;
mod contract;
mod crowd;
mod demo;
mod descriptors;
mod documents;
mod encodings;
mod facts;
mod field;
mod forks;
mod harness;
mod hostile;
mod large;
mod load;
mod members;
mod migrated;
mod operations;
mod page;
mod page_fits;
mod page_tabs;
mod patients;
mod pooler;
mod random;
mod readme;
mod replay;
mod restored;
mod resume;
mod secrets;
mod sessions;
mod simulate;
mod slot;
mod slow;
mod stale;
mod stalled;
mod standby;
mod tail;
mod tail_again;
mod tail_answers;
mod tail_download;
mod tail_envelope;
mod tail_progress;
mod transactions;
mod uninstall;
mod wire;

fn main() -> std::process::ExitCode {
    tests::main(
        [
            harness::cases(),
            wire::cases(),
            replay::cases(),
            members::cases(),
            accounts::cases(),
            hostile::cases(),
            field::cases(),
            slow::cases(),
            stale::cases(),
            resume::cases(),
            transactions::cases(),
            uninstall::cases(),
            operations::cases(),
            encodings::cases(),
            sessions::cases(),
            secrets::cases(),
            patients::cases(),
            pooler::cases(),
            descriptors::cases(),
            slot::cases(),
            forks::cases(),
            restored::cases(),
            stalled::cases(),
            standby::cases(),
            large::cases(),
            load::cases(),
            tail::cases(),
            tail_download::cases(),
            tail_again::cases(),
            tail_envelope::cases(),
            tail_progress::cases(),
            tail_answers::cases(),
            check::cases(),
            facts::cases(),
            migrated::cases(),
            demo::cases(),
            simulate::cases(),
            clients::cases(),
            contract::cases(),
            documents::cases(),
            readme::cases(),
            browser::cases(),
            page::cases(),
            page_fits::cases(),
            page_tabs::cases(),
            random::cases(),
            clock::cases(),
            chaos::cases(),
        ]
        .concat(),
    )
}
