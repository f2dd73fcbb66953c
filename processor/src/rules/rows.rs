//! The rows of a closed window as rules see them; what several rules ask for is computed once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bongsu_schemas::alert::AlertLevel;
use bongsu_schemas::key::GroupKey;
use bongsu_schemas::services::{FALLBACK, Services};

use super::alert::service_of;
use super::condition::ParamsOfRows;
use super::engine::{ClosedWindow, CompiledRule};
use super::series::Verdict;
use crate::results::{RowObject, row_object};

/// Which services have parameters of their own for a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    /// For all of their series or for some; `"*"` is not among them.
    services: BTreeSet<String>,
    /// For some of their series.
    services_with_series: BTreeSet<String>,
}

impl Overrides {
    pub(super) fn of(rule: &str, services: &Services) -> Overrides {
        let mut overrides = Overrides::default();
        for name in services.0.keys() {
            let (for_series, at_all) = services.sets_params(name, rule);
            if for_series {
                overrides.services_with_series.insert(name.clone());
            }
            if at_all && name != FALLBACK {
                overrides.services.insert(name.clone());
            }
        }
        overrides
    }

    /// Whether the parameters depend on more of a key than its service.
    fn by_series(&self, service: &str) -> bool {
        let has = |name: &str| self.services_with_series.contains(name);
        !self.services_with_series.is_empty() && (has(service) || has(FALLBACK))
    }
}

/// See the module.
pub(super) struct Rows<'a> {
    pub(super) window: ClosedWindow<'a>,
    key_texts: OnceCell<Vec<String>>,
    rows_by_key: OnceCell<HashMap<String, usize>>,
    services: OnceCell<Option<Vec<Option<String>>>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(window: ClosedWindow<'a>) -> Rows<'a> {
        Rows { window, key_texts: OnceCell::new(), rows_by_key: OnceCell::new(), services: OnceCell::new() }
    }

    /// Text of a row's group key.
    pub(super) fn key_text(&self, row: usize) -> Cow<'_, str> {
        match self.key_texts.get() {
            Some(texts) => Cow::Borrowed(&texts[row]),
            None => Cow::Owned(self.written_key(row)),
        }
    }

    /// The row of a series.
    pub(super) fn row_of(&self, key_text: &str) -> Option<usize> {
        let rows = self.rows_by_key.get_or_init(|| {
            let texts = self.key_texts.get_or_init(|| (0..self.len()).map(|row| self.written_key(row)).collect());
            texts.iter().cloned().zip(0..).collect()
        });
        rows.get(key_text).copied()
    }

    pub(super) fn key(&self, row: usize) -> GroupKey {
        row_object(self.window.results, &self.window.plan.keys, row)
    }

    /// What a rule says of each row.
    pub(super) fn verdicts(
        &self,
        compiled: &CompiledRule,
        overrides: &Overrides,
        services: &Services,
    ) -> anyhow::Result<Vec<Verdict>> {
        let ClosedWindow { plan, results, start_ms, end_ms, .. } = self.window;
        let judge = |level: Option<AlertLevel>| {
            let params = self.params(compiled, overrides, services, level);
            compiled.conditions.judge(plan, results, (start_ms, end_ms), &params)
        };
        let mut verdicts = vec![Verdict { critical_clear: true, ..Verdict::default() }; self.len()];
        for level in compiled.rule.severity.levels() {
            let judged = judge(*level)?;
            for (row, verdict) in verdicts.iter_mut().enumerate() {
                match level {
                    Some(AlertLevel::Critical) => {
                        // What is critical is bad enough for a warning, whatever the parameters say.
                        verdict.met |= judged.met[row];
                        verdict.critical = judged.met[row];
                        verdict.critical_clear = judged.clear[row];
                    }
                    Some(AlertLevel::Warn) | None => {
                        verdict.met = judged.met[row];
                        verdict.clear = judged.clear[row];
                    }
                }
            }
        }
        Ok(verdicts)
    }

    fn params(
        &self,
        compiled: &CompiledRule,
        overrides: &Overrides,
        services: &Services,
        level: Option<AlertLevel>,
    ) -> ParamsOfRows {
        let rule = &compiled.rule.name;
        let params_of =
            |service: Option<&str>, key: &GroupKey| compiled.conditions.params_of(rule, service, key, level, services);
        let of_rule = compiled.rule.service.as_deref();
        let is_uniform = overrides.services.is_empty() && overrides.services_with_series.is_empty();
        let columns = if is_uniform { None } else { self.services() };
        let Some(names) = columns else {
            if overrides.services_with_series.is_empty() {
                return ParamsOfRows::same(params_of(of_rule, &GroupKey::new()));
            }
            let distinct = (0..self.len()).map(|row| params_of(of_rule, &self.key(row))).collect();
            return ParamsOfRows { distinct, of_row: Some((0..self.len()).collect()) };
        };
        let mut distinct = vec![params_of(None, &GroupKey::new())];
        let mut index_of: HashMap<&str, usize> = HashMap::new();
        let mut of_row = Vec::with_capacity(self.len());
        for (row, name) in names.iter().enumerate() {
            let name = name.as_deref().or(of_rule).unwrap_or(FALLBACK);
            let index = if overrides.by_series(name) {
                let key = self.key(row);
                distinct.push(params_of(service_of(&compiled.rule, &key).as_deref(), &key));
                distinct.len() - 1
            } else if !overrides.services.contains(name) {
                0
            } else {
                *index_of.entry(name).or_insert_with(|| {
                    distinct.push(params_of(Some(name), &GroupKey::new()));
                    distinct.len() - 1
                })
            };
            of_row.push(index);
        }
        ParamsOfRows { distinct, of_row: Some(of_row) }
    }

    /// The service of each row; none where the view does not have it among its keys as a text.
    fn services(&self) -> Option<&Vec<Option<String>>> {
        let read = || {
            let ClosedWindow { plan, results, .. } = self.window;
            let schema = results.schema();
            let column = plan.keys.iter().find(|key| schema.field(**key).name() == "service")?;
            let texts = cast(results.column(*column), &DataType::Utf8).ok()?;
            let texts = texts.as_string::<i32>();
            Some((0..texts.len()).map(|row| texts.is_valid(row).then(|| texts.value(row).to_owned())).collect())
        };
        self.services.get_or_init(read).as_ref()
    }

    fn len(&self) -> usize {
        self.window.results.num_rows()
    }

    fn written_key(&self, row: usize) -> String {
        let ClosedWindow { plan, results, .. } = self.window;
        // Text keys and JSON values always serialise.
        serde_json::to_string(&RowObject { batch: results, columns: &plan.keys_by_name, row }).unwrap_or_default()
    }
}
