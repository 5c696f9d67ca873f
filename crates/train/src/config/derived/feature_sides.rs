//! Which sides of the data are features, so that the model has no tower for them.

use crate::config::schema::RunConfig;

impl RunConfig {
    /// Whether the training data have features in place of images, and of texts. All sources of a valid config agree.
    pub fn feature_sides(&self) -> [bool; 2] {
        let tables = self.data.train.tables();
        let features = tables.first().and_then(|(_, table)| table.features.as_ref());
        features.map_or([false; 2], |features| features.sides())
    }
}
