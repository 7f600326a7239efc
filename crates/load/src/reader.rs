//! From the input to batches of operations: decides what is loaded and what is bad.

use super::batch::{Batches, Gone, Operation, Origin};
use super::bundle::{self, Bundle, Wish};
use super::document::{Document, Documents, Found, Text};
use super::input::Inputs;
use super::references::resolved;
use super::report::Report;
use super::resource::{Bad, Resource};
use anyhow::Context as _;
use fhir::ResourceType;
use std::io::{BufRead, BufReader, Seek as _};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Reads all inputs to their end, or up to what is bad, or until the database takes nothing any more.
pub(super) fn read_all(
    inputs: Inputs,
    keep_going: bool,
    report: &Report,
    batches: Batches,
) -> anyhow::Result<()> {
    let mut reader = Reader { keep_going, report, batches };
    for (name, opened) in inputs.open(report.bar()) {
        let cannot = || format!("cannot read {name}");
        let input = opened.with_context(cannot)?;
        match reader.read(&name, input).with_context(cannot)? {
            Ok(()) => {}
            // Each was told by who found it.
            Err(Stop::Bad | Stop::Gone) => return Ok(()),
        }
    }
    // When the database is gone, the writer says why.
    let _ = reader.batches.finish();
    Ok(())
}

/// Why reading stops before the end.
enum Stop {
    /// Something is bad and nobody asked to go on.
    Bad,
    /// The database takes nothing any more.
    Gone,
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

struct Reader<'a> {
    keep_going: bool,
    report: &'a Report,
    batches: Batches,
}

impl Reader<'_> {
    fn read(&mut self, name: &Arc<str>, input: impl BufRead) -> std::io::Result<Result<(), Stop>> {
        let mut documents = Documents::of(input);
        while let Some(found) = documents.next()? {
            if let Err(stop) = self.document(name, found) {
                return Ok(Err(stop));
            }
        }
        Ok(Ok(()))
    }

    fn document(&mut self, name: &Arc<str>, found: Found) -> Result<(), Stop> {
        let origin = |line| Origin { file: Arc::clone(name), line, entry: None };
        let Document { line, mut text } = match found {
            Ok(document) => document,
            Err((line, broken)) => return self.bad(&origin(line), &broken.into()),
        };
        let origin = origin(line);
        let resource = match head(&mut text) {
            Ok(resource) => resource,
            Err(bad) => return self.bad(&origin, &bad),
        };
        if resource.resource_type == ResourceType::BUNDLE {
            match Bundle::of(resource.bundle_type.as_deref()) {
                Ok(Bundle::Resource) => {}
                Ok(kind) => return self.bundle(kind, &origin, &mut text),
                Err(bad) => return self.bad(&origin, &bad),
            }
        }
        match (resource.id, text) {
            (Some(id), Text::Memory(bytes)) => match String::from_utf8(bytes) {
                Ok(content) => self.push(origin, resource.resource_type, id, Some(content)),
                Err(_) => self.bad(&origin, &Bad::NoUtf8),
            },
            (None, _) => self.bad(&origin, &Bad::NoId),
            (_, Text::File(_)) => self.bad(&origin, &Bad::TooLarge),
        }
    }

    fn bundle(&mut self, kind: Bundle, origin: &Origin, text: &mut Text) -> Result<(), Stop> {
        let at = |number| Origin { entry: Some(number), ..origin.clone() };
        let survey = match bundle::survey(text, kind, |number, bad| self.report.tell(&at(number), bad)) {
            Ok(survey) => survey,
            Err(bad) => return self.bad(origin, &bad),
        };
        if !survey.bad.is_empty() && !self.keep_going {
            return Err(Stop::Bad);
        }
        if !survey.bad.is_empty() && kind == Bundle::Transaction {
            return self.bad(origin, &Bad::Transaction);
        }
        if kind == Bundle::Transaction {
            self.batches.begin_unit(survey.entries)?;
        }
        let mut result = Ok(());
        let walked = bundle::for_each(text, &mut |number, entry| {
            // What is bad was told by the survey.
            if survey.bad.contains(&number) {
                return ControlFlow::Continue(());
            }
            result = match entry.wish() {
                Ok(Wish::Put { resource_type, id, content }) => {
                    let content = resolved(content.get(), resource_type.as_str(), &survey.links).into_owned();
                    self.push(at(number), resource_type, id, Some(content))
                }
                Ok(Wish::Delete { resource_type, id }) => self.push(at(number), resource_type, id, None),
                Ok(Wish::Nothing) | Err(_) => Ok(()),
            };
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        result?;
        if let Err(bad) = walked {
            // The survey read the same to its end, so this is the temporary file. What was pushed of a
            // transaction must not be completed.
            self.report.tell(origin, &bad);
            return Err(Stop::Bad);
        }
        if kind == Bundle::Transaction {
            self.batches.end_unit()?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        origin: Origin,
        resource_type: ResourceType,
        id: String,
        content: Option<String>,
    ) -> Result<(), Stop> {
        Ok(self.batches.push(Operation { origin, unit: 0, resource_type, id, content })?)
    }

    fn bad(&mut self, origin: &Origin, bad: &Bad) -> Result<(), Stop> {
        self.report.tell(origin, bad);
        if self.keep_going { Ok(()) } else { Err(Stop::Bad) }
    }
}

/// What the object is.
fn head(text: &mut Text) -> Result<Resource, Bad> {
    match text {
        Text::Memory(bytes) => Resource::of(std::str::from_utf8(bytes).map_err(|_| Bad::NoUtf8)?),
        Text::File(file) => {
            file.rewind().map_err(|error| Bad::Spool(error.to_string()))?;
            Resource::of_reader(BufReader::with_capacity(256 * 1024, file))
        }
    }
}
