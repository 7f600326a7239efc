//! The pages of patients who stay the same: the ordinary replay and cutover, with a filter that resources can leave.
//!
//! There is one round only. A later one would read what was stamped since the first; a resource that left in between is not
//! found by its patients any more, and the client would keep it.

use super::subscriber::{Following, Pages, Place, Stream};
use super::world::{Position, Watermark};
use super::{RESOURCES, Reached};
use crate::Bug;

impl Stream<'_> {
    pub(super) fn first_pages(&mut self) -> Option<Place> {
        let watermark = self.watermark()?;
        Some(Place::Pages(Pages { since: None, watermark, after: None }))
    }

    /// The next row of a page, or the end of the pages.
    pub(super) fn pages(&mut self, pages: Pages) -> Place {
        let asked = self.model.patients.unwrap_or(0);
        let rows = self.world.table.iter().take(RESOURCES).enumerate();
        let next = rows
            .filter_map(|(key, row)| row.map(|row| (row.stamp, key, row.patients)))
            .filter(|(stamp, key, patients)| {
                *stamp <= pages.watermark.safe_time
                    && pages.since.is_none_or(|since| *stamp > since)
                    && pages.after.is_none_or(|after| after < (*stamp, *key))
                    && self.is_in(*patients, asked)
            })
            .min();
        match next {
            Some((stamp, key, patients)) => {
                let place = Place::Pages(Pages { after: Some((stamp, key)), ..pages });
                self.resource(key, stamp, patients, self.world.log.len(), place);
                place
            }
            None if self.has(Bug::LaterRoundInScope) && pages.since.is_none() => match self.watermark() {
                Some(watermark) => {
                    let since = Some(pages.watermark.safe_time);
                    Place::Pages(Pages { since, watermark, after: None })
                }
                None => self.hand_over(pages.watermark),
            },
            None => self.hand_over(pages.watermark),
        }
    }

    /// To the first entry that is the feed's; a reset, if one may have been dropped.
    fn hand_over(&mut self, watermark: Watermark) -> Place {
        if watermark.safe_time < self.world.floor_stamp {
            return self.reset();
        }
        self.model.reach(Reached::HandedOver);
        let log = &self.world.log[..self.world.decoded];
        let position: Position = (self.world.floor..log.len())
            .find(|place| watermark.leaves_to_feed(*place, &log[*place]))
            .unwrap_or(log.len());
        let following = Following { cutover: Some(watermark), ..Following::at(position) };
        self.live(watermark.safe_time, Place::Following(following));
        Place::Following(following)
    }
}
