//! What keeps a format from expressing a model: all obstacles at once, and those in the layers of towers, which every
//! format but `heads` shares.

use dualenc_model::Tower;

use crate::error::TrainError;

/// What every model can be written as, and what reads it.
pub(crate) const ANY_MODEL: &str = "`--format heads` writes the heads with Python that applies them to outputs \
                                    of the towers, and every command of dualenc reads the run directory or the \
                                    checkpoint (`dualenc embed` writes the embeddings)";

/// Everything that is in the way, so that nobody finds it one by one.
#[derive(Debug, Default)]
pub(crate) struct Obstacles(Vec<String>);

impl Obstacles {
    /// The value, unless it is what is in the way.
    ///
    /// # Errors
    /// Those of `found`, but for [`TrainError::Usage`], which is kept.
    pub fn keep<T>(&mut self, found: Result<T, TrainError>) -> Result<Option<T>, TrainError> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(TrainError::Usage(message)) => {
                self.0.push(message);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a model that `program` cannot express.
    ///
    /// # Errors
    /// [`TrainError::Usage`] with all that is in the way.
    pub fn refuse(self, program: &str) -> Result<(), TrainError> {
        let message = match &self.0[..] {
            [] => return Ok(()),
            [one] => one.clone(),
            several => {
                let end = format!("; {ANY_MODEL}");
                let lines = several.iter().map(|it| format!("\n- {}", it.strip_suffix(&end).unwrap_or(it)));
                let count = several.len();
                format!(
                    "{program} cannot express this model, for {count} reasons:{}\n{ANY_MODEL}",
                    lines.collect::<String>()
                )
            }
        };
        Err(TrainError::Usage(message))
    }
}

/// Refuses a tower that concatenates the pooled outputs of several `layers`, which `program` cannot do.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_layers(program: &str, tower: Tower, layers: &[usize]) -> Result<(), TrainError> {
    if layers.is_empty() {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "{program} pools one layer of a tower, but the {tower} of this model concatenates layers {}; to export, train \
         with one layer as `{}_layer`; {ANY_MODEL}",
        listed(layers),
        tower.kind()
    )))
}

/// The numbers of layers in words: `9, 10, 11`.
pub(crate) fn listed(layers: &[usize]) -> String {
    layers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
