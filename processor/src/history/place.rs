//! The object store that a history is in.

use std::collections::BTreeSet;

use anyhow::Context;
use arrow::array::RecordBatch;
use bongsu_schemas::history::{History, view_folder};
use chrono::NaiveDate;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use tokio::runtime::Runtime;
use url::Url;

/// So many files are asked for at once: a store across a network takes its time for each.
const READS_AT_ONCE: usize = 16;

/// A store and the folder in it. Whoever uses it is a thread of its own, though the store is asynchronous.
pub(crate) struct Place {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

impl Place {
    pub(crate) fn open(history: &History) -> anyhow::Result<Place> {
        let url = Url::parse(&history.url).with_context(|| format!("`history.url` is no URL: `{}`", history.url))?;
        let options = std::env::vars().map(|(name, value)| (name.to_lowercase(), value));
        let options = options.filter(|(name, _)| name.starts_with("aws_"));
        let (store, prefix) = object_store::parse_url_opts(&url, options)
            .with_context(|| format!("cannot open the history at `{}`", history.url))?;
        Ok(Place { store, prefix, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    pub(crate) fn path(&self, relative: &str) -> Path {
        // Names of views are letters, digits and `_`, and dates are dates: nothing needs escaping.
        Path::from(format!("{}/{relative}", self.prefix))
    }

    /// The files of a folder, those in folders of it too; none where there is no such folder.
    pub(crate) fn list(&self, folder: &str) -> anyhow::Result<Vec<ObjectMeta>> {
        let listed = self.store.list(Some(&self.path(folder))).try_collect::<Vec<_>>();
        self.runtime.block_on(listed).with_context(|| format!("cannot list `{folder}` of the history"))
    }

    /// The days of which a view has windows.
    pub(crate) fn dates(&self, view: &str) -> anyhow::Result<BTreeSet<NaiveDate>> {
        let folder = view_folder(view);
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&self.path(&folder))));
        let listed = listed.with_context(|| format!("cannot list `{folder}` of the history"))?;
        Ok(listed.common_prefixes.iter().filter_map(date_of).collect())
    }

    /// What the files say of themselves, in the order of `paths`. `about` is what is kept of it: there can be thousands.
    pub(crate) fn metadata<T>(&self, paths: &[Path], about: impl Fn(&ParquetMetaData) -> T) -> anyhow::Result<Vec<T>> {
        let about = &about;
        let read = stream::iter(paths).map(|path| async move {
            let bytes = self.store.get(path).await?.bytes().await?;
            anyhow::Ok(about(ParquetRecordBatchReaderBuilder::try_new(bytes)?.metadata()))
        });
        self.collect(paths, read.buffered(READS_AT_ONCE))
    }

    /// The rows of files, in the order of `paths`.
    pub(crate) fn rows(&self, paths: &[Path]) -> anyhow::Result<Vec<Vec<RecordBatch>>> {
        let read = stream::iter(paths).map(|path| async move {
            let bytes = self.store.get(path).await?.bytes().await?;
            let rows = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
            anyhow::Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        self.collect(paths, read.buffered(READS_AT_ONCE))
    }

    /// All answers, or the first error with the name of its file.
    fn collect<T>(
        &self,
        paths: &[Path],
        answers: impl stream::Stream<Item = anyhow::Result<T>>,
    ) -> anyhow::Result<Vec<T>> {
        let named = answers.zip(stream::iter(paths));
        let named = named.map(|(answer, path)| answer.with_context(|| format!("cannot read `{path}`")));
        self.runtime.block_on(named.try_collect())
    }

    /// Creates a file; false if there is one of that name.
    pub(crate) fn create(&self, path: &Path, bytes: Vec<u8>) -> anyhow::Result<bool> {
        let put = self.store.put_opts(path, bytes.into(), PutOptions::from(PutMode::Create));
        match self.runtime.block_on(put) {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot write `{path}`")),
        }
    }

    pub(crate) fn delete(&self, path: &Path) -> anyhow::Result<()> {
        self.runtime.block_on(self.store.delete(path)).context("cannot delete old history")
    }
}

/// The day whose windows are in a folder, or in a file of it.
pub(crate) fn date_of(path: &Path) -> Option<NaiveDate> {
    path.parts().find_map(|part| part.as_ref().strip_prefix("date=")?.parse().ok())
}
