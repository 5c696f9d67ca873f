//! The tensors of a head, as PyTorch's modules have them.

use std::collections::BTreeMap;

use dualenc_model::{Head, HeadForm, HostTensor, TokenHead, Tower};

use crate::error::TrainError;

/// A head: its form, and its tensors by their names below the head.
pub(crate) struct HeadPart {
    pub form: HeadForm,
    /// Values of its input.
    pub width: usize,
    /// Values of its output.
    pub dim: usize,
    /// Matrices are `[output, input]`, as in `torch.nn.Linear`.
    pub tensors: BTreeMap<String, HostTensor>,
}

impl HeadPart {
    /// Moves the tensors of the head of `tower` out of `parameters`.
    pub fn take_from(parameters: &mut BTreeMap<String, HostTensor>, tower: Tower, head: &Head) -> Self {
        let prefix = format!("{}.", tower.head_module());
        let own = parameters.extract_if(.., |path, _| path.starts_with(&prefix));
        let tensors = own.map(|(path, tensor)| (path[prefix.len()..].to_owned(), transposed(tensor))).collect();
        Self { form: head.form(), width: head.width(), dim: head.dim(), tensors }
    }

    /// Moves the tensors of what takes all tokens of an image out of `parameters`, by their names there. Matrices are
    /// `[output, input]`, but for the learned query, which is none.
    pub fn take_tokens_from(parameters: &mut BTreeMap<String, HostTensor>) -> BTreeMap<String, HostTensor> {
        let prefix = format!("{}.", TokenHead::MODULE);
        let own = parameters.extract_if(.., |path, _| path.starts_with(&prefix));
        own.map(|(path, tensor)| {
            let is_matrix = !path.ends_with(".probe");
            (path, if is_matrix { transposed(tensor) } else { tensor })
        })
        .collect()
    }

    /// The same head as one of matrices: the first rows of the identity matrix in place of an identity.
    #[must_use]
    pub fn with_matrix(mut self) -> Self {
        if self.form.is_identity() {
            let mut matrix = HostTensor::identity(self.width);
            matrix.values.truncate(self.dim * self.width);
            matrix.shape = vec![self.dim, self.width];
            self.tensors.insert("weight".to_owned(), matrix);
            self.form = HeadForm::LINEAR;
        }
        self
    }

    /// Takes the tensor with this name.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when there is none.
    pub fn take(&mut self, name: &str) -> Result<HostTensor, TrainError> {
        let missing = || TrainError::Internal(format!("a `{}` head has no tensor `{name}` to export", self.form));
        self.tensors.remove(name).ok_or_else(missing)
    }
}

/// A matrix as `torch.nn.Linear` stores it; other tensors as they are.
fn transposed(tensor: HostTensor) -> HostTensor {
    let &[rows, columns] = &tensor.shape[..] else { return tensor };
    let value = |at: usize| tensor.values[at % rows * columns + at / rows];
    HostTensor { shape: vec![columns, rows], values: (0..rows * columns).map(value).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_transposed() {
        let matrix = HostTensor { shape: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let expected = HostTensor { shape: vec![3, 2], values: vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0] };
        assert_eq!(transposed(matrix), expected);
    }
}
