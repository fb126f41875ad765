//! The commands that list something.

use jiff::Timestamp;
use moji_proto::api::{BASE, Build, Builder, Overview, Page, Queued, Target, Why as Reasons};

use super::{Context, path};
use crate::operator::Failure;
use crate::operator::options::{History, Json, Queue, Why};
use crate::operator::output::{lists, overview, pretty, print, report, story};

impl Context {
    pub(super) async fn status(&self, json: Json) -> Result<(), Failure> {
        let style = self.style;
        self.show(&format!("{BASE}/overview"), json, |overview: &Overview| {
            overview::status(overview, Timestamp::now(), &style)
        })
        .await
    }

    pub(super) async fn queue(&self, wanted: Queue) -> Result<(), Failure> {
        let Queue { target, limit, json } = wanted;
        let query = target.map(|target| ("target", target)).into_iter().chain([("limit", limit.to_string())]);
        let style = self.style;
        self.show(&path(&format!("{BASE}/queue"), query), json, |page: &Page<Queued>| {
            lists::queue(page, Timestamp::now(), &style)
        })
        .await
    }

    pub(super) async fn builders(&self, json: Json) -> Result<(), Failure> {
        let style = self.style;
        self.show(&format!("{BASE}/builders"), json, |builders: &Vec<Builder>| {
            lists::builders(builders, Timestamp::now(), &style)
        })
        .await
    }

    pub(super) async fn targets(&self, json: Json) -> Result<(), Failure> {
        let style = self.style;
        self.show(&format!("{BASE}/targets"), json, |targets: &Vec<Target>| lists::targets(targets, &style))
            .await
    }

    pub(super) async fn history(&self, wanted: History) -> Result<(), Failure> {
        let History { package, state, target, builder, limit, before, json } = wanted;
        let query = [
            ("package", package),
            ("state", state.map(|state| state.word().to_owned())),
            ("target", target),
            ("builder", builder),
            ("before", before.map(|before| before.to_string())),
            ("limit", Some(limit.to_string())),
        ];
        let query = query.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let style = self.style;
        self.show(&path(&format!("{BASE}/builds"), query), json, |page: &Page<Build>| {
            lists::builds(page, &style)
        })
        .await
    }

    pub(super) async fn report(&self, json: Json) -> Result<(), Failure> {
        let style = self.style;
        self.show(&format!("{BASE}/report"), json, |value| report::report(value, &style)).await
    }

    pub(super) async fn why(&self, wanted: Why) -> Result<(), Failure> {
        let build = self.find(&wanted.build).await?;
        let style = self.style;
        self.show(&format!("{BASE}/builds/{}/why", build.id), wanted.json, |why: &Reasons| {
            story::why(why, Timestamp::now(), &style)
        })
        .await
    }

    /// Prints what is at `path`: as JSON, or what `text` makes of it.
    async fn show<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        json: Json,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if json.json {
            return print(&pretty(&self.farm.json(path).await?));
        }
        print(&text(&self.farm.json(path).await?))
    }
}
