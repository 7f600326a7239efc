//! The page at the root: its files, which are part of the program, and the headers that keep it to itself.
//!
//! It uses nothing but the public `$export`, as any other client. What it shows are patients' names, so nothing but its own scripts
//! and styles may run in it, and nothing may be fetched from anywhere else.

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fhir::stable_hash;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

/// What the page may do: run and fetch what comes from here, and be in nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const STYLE: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const PICTURE: HeaderValue = HeaderValue::from_static("image/svg+xml");

/// One file: its path, its media type, and its text.
#[derive(Clone)]
struct File(&'static str, HeaderValue, &'static str);

/// The files of the folder `page`, at their paths.
macro_rules! files {
    ($($media_type:ident $name:literal),* $(,)?) => {
        [$(File(concat!("/page/", $name), $media_type, include_str!(concat!("../page/", $name)))),*]
    };
}

fn files() -> impl Iterator<Item = File> {
    let beside = files![
        STYLE "style.css",
        PICTURE "icon.svg",
        SCRIPT "address.js",
        SCRIPT "board-choice.js",
        SCRIPT "board-view.js",
        SCRIPT "board.js",
        SCRIPT "chart.js",
        SCRIPT "dom.js",
        SCRIPT "feed.js",
        SCRIPT "fhir.js",
        SCRIPT "gaps.js",
        SCRIPT "json.js",
        SCRIPT "main.js",
        SCRIPT "measured.js",
        SCRIPT "numbers.js",
        SCRIPT "rates.js",
        SCRIPT "request-view.js",
        SCRIPT "request.js",
        SCRIPT "resources-view.js",
        SCRIPT "status-view.js",
        SCRIPT "subscription.js",
        SCRIPT "summary.js",
        SCRIPT "turn.js",
        SCRIPT "types.js",
    ];
    std::iter::once(File("/", HTML, include_str!("../page/index.html"))).chain(beside)
}

/// The routes of the page: `/`, and its files below `/page/`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    files().fold(Router::new(), |router, file| {
        let path = file.0;
        let tag = tag(file.2);
        router.route(path, get(async move |headers: HeaderMap| answer(&file, tag, &headers)))
    })
}

/// Another text has another tag: a browser asks each time, and gets what is new after an upgrade.
fn tag(text: &str) -> u32 {
    stable_hash(text.bytes())
}

fn answer(file: &File, tag: u32, asked: &HeaderMap) -> Response {
    let File(_, media_type, text) = file;
    let tag = format!("\"{tag:08x}\"");
    let has_it = asked.get_all(IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default().split(',');
        tags.map(|tag| tag.trim().trim_start_matches("W/")).any(|has| has == tag || has == "*")
    });
    let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-cache")), (CONTENT_SECURITY_POLICY, POLICY)];
    if has_it {
        return (StatusCode::NOT_MODIFIED, headers, [(ETAG, tag)]).into_response();
    }
    (headers, [(ETAG, tag)], [(CONTENT_TYPE, media_type.clone())], *text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/page");

    #[test]
    fn every_file_of_the_folder_is_served() {
        let served: BTreeSet<String> = files().map(|file| file.0.to_owned()).collect();
        let names = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        // It tells Node, which tries some of them, that they are modules.
        let there = names.filter(|name| name != "package.json").map(|name| match name.as_str() {
            "index.html" => "/".to_owned(),
            name => format!("/page/{name}"),
        });
        assert_eq!(served, there.collect());
    }

    #[test]
    fn scripts_import_what_there_is() {
        let served: BTreeSet<String> = files().map(|file| file.0.to_owned()).collect();
        for File(path, _, text) in files() {
            for (_, after) in
                text.match_indices(" from \"./").map(|(at, found)| (at, &text[at + found.len()..]))
            {
                let name = after.split('"').next().unwrap();
                assert!(served.contains(&format!("/page/{name}")), "{path} imports {name}");
            }
        }
    }

    /// The policy would refuse them, and the page would be without.
    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for File(path, _, text) in files() {
            for word in [
                "<style",
                " style=",
                " onclick=",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
            ] {
                assert!(!text.contains(word), "{path} has {word}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
        }
    }

    #[test]
    fn the_page_knows_every_resource_type() {
        let File(_, _, text) = files().find(|file| file.0 == "/page/types.js").unwrap();
        let names: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        let types: Vec<&str> = fhir::ResourceType::all().map(fhir::ResourceType::as_str).collect();
        assert_eq!(names, types);
    }
}
