//! The page is no wider than its window, whatever the browser's font and the names in the resources. Which fonts a machine has
//! differs: the test brings a wide and a narrow one.

use crate::page::{Watched, issue, write};
use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tests::{Browser, Case, Context, Engine, cases, font, put};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![once it_fits_its_window];
    cases.iter_mut().for_each(|case| case.skip = || Engine::Chromium.missing());
    cases
}

/// In thousandths of an em. Letters of most fonts are between 450 and 600 wide on average; of DejaVu Sans, 600.
const WIDE: u16 = 750;
const NARROW: u16 = 380;

/// As a phone, as the narrowest window that WCAG 2.2 asks for, and at a desk.
const WIDTHS: [u32; 4] = [320, 390, 800, 1280];

async fn it_fits_its_window(context: Context) -> Result<()> {
    let watched = Watched::start(&context, Engine::Chromium).await?;
    let (sql, browser) = (&watched.site.sql, &watched.browser);
    // One word, longer than any line.
    let long = "Wolfeschlegelsteinhausenbergerdorff".repeat(4);
    write(sql, "Patient", "p1", &json!({"resourceType": "Patient", "name": [{"text": long}]})).await?;
    let measure = json!({"resourceType": "Measure", "url": "http://example.org/Measure/crc", "title": long});
    write(sql, "Measure", "crc", &measure).await?;
    write(sql, "DetectedIssue", "i1", &issue("r1", "closed-gap")).await?;
    watched.flipped("open→closed").await?;
    write(sql, "DetectedIssue", "i1", &issue("r1", "prospective-gap")).await?;
    watched.flipped("closed→prospective").await?;
    let id = "0123456789abcdef".repeat(4);
    put(sql, "SubstanceReferenceInformation", &id, 1).await?;
    watched.newest(&id).await?;
    browser.run("document.querySelector('#resources summary').click()").await?;
    browser.sees("JSON", "return document.querySelector('#resources pre') !== null").await?;
    let wrong = "const since = document.getElementById('since'); since.value = 'yesterday'; since.dispatchEvent(new Event('change'))";
    browser.run(wrong).await?;
    // Where scroll bars take room they do so.
    browser.run("document.documentElement.style.overflowY = 'scroll'").await?;
    fits(browser, "its own font").await?;
    for (name, width) in [("wide", WIDE), ("narrow", NARROW)] {
        bring(browser, name, width).await?;
        fits(browser, &format!("a {name} font")).await?;
    }
    watched.browser.close().await
}

/// Makes a font that of the page, and makes sure that it is.
async fn bring(browser: &Browser, name: &str, width: u16) -> Result<()> {
    let file = BASE64_STANDARD.encode(font(width));
    let script = format!(
        "const bytes = Uint8Array.from(atob('{file}'), (letter) => letter.charCodeAt(0));
         const face = new FontFace('{name}', bytes.buffer);
         document.fonts.add(await face.load());
         for (const family of ['--sans', '--mono']) document.documentElement.style.setProperty(family, '{name}');
         const paper = document.createElement('canvas').getContext('2d');
         paper.font = `100px ${{getComputedStyle(document.querySelector('h1')).fontFamily}}`;
         return paper.measureText('illegible').width"
    );
    let measured = browser.run(&script).await?;
    let expected = f64::from(width) * 0.9;
    ensure!(
        measured.as_f64().is_some_and(|measured| (measured - expected).abs() < 1.0),
        "the {name} font is not in use: {measured} instead of {expected}"
    );
    Ok(())
}

async fn fits(browser: &Browser, font: &str) -> Result<()> {
    for width in WIDTHS {
        browser.resize(width, 900).await?;
        // What is cut off by an element of its own, and scrolls in it or ends in three dots, is not too wide.
        let too_wide = "const width = document.documentElement.clientWidth;
            const clipped = (element) => element.parentElement !== document.body
                && (getComputedStyle(element.parentElement).overflowX !== 'visible' || clipped(element.parentElement));
            return document.documentElement.scrollWidth <= width ? [] :
                [...document.querySelectorAll('body *')]
                    .filter((element) => element.getBoundingClientRect().right > width && !clipped(element))
                    .map((element) => `${element.tagName} ${element.className} ${element.id}`.slice(0, 60))
                    .concat(`${document.documentElement.scrollWidth} of ${width}`)";
        let found = browser.run(too_wide).await?;
        ensure!(
            found == json!([]),
            "at {width} pixels, in {font}, the page is wider than its window: {found}"
        );
        // A name that is squeezed into a column of single letters fits, and cannot be read.
        let legible = "const title = document.querySelector('#measures .title');
            return title.getBoundingClientRect().width >= 4 * parseFloat(getComputedStyle(title).fontSize)";
        ensure!(browser.run(legible).await? == true, "at {width} pixels, in {font}, names are squeezed");
    }
    Ok(())
}
