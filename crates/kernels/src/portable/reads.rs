//! Copies to the host that are queued now and waited for later, so that a device goes on meanwhile.

use burn::tensor::{Tensor, Transaction};

use crate::portable::transfers::count_read;

/// The values of flat tensors on their way to the host.
pub struct PendingRead(Pending);

enum Pending {
    /// Queued behind the work that computes them.
    #[cfg(feature = "cube")]
    Queued(crate::cube::reads::Queued),
    /// Read when they are waited for: the backend computes at once.
    Later(Vec<Tensor<1>>),
}

impl Pending {
    /// Number of tensors.
    fn count(&self) -> usize {
        match self {
            #[cfg(feature = "cube")]
            Self::Queued(queued) => queued.count(),
            Self::Later(tensors) => tensors.len(),
        }
    }
}

impl PendingRead {
    /// Queues a copy of `tensors`. What is queued on the device later does not delay it. Dropping the read waits for
    /// it.
    pub fn start(tensors: Vec<Tensor<1>>) -> Self {
        if let Some(first) = tensors.first() {
            count_read(&first.device());
        }
        let tensors: Vec<_> = tensors.into_iter().map(Tensor::without_autodiff).collect();
        #[cfg(feature = "cube")]
        let tensors = match crate::cube::reads::queue(tensors) {
            Ok(queued) => return Self(Pending::Queued(queued)),
            Err(tensors) => tensors,
        };
        Self(Pending::Later(tensors))
    }

    /// Waits for the values, in the order of the tensors.
    ///
    /// # Errors
    /// What the device says, when it cannot return them.
    pub fn wait(self) -> Result<Vec<Vec<f32>>, String> {
        let count = self.0.count();
        let data = match self.0 {
            #[cfg(feature = "cube")]
            Pending::Queued(queued) => queued.wait()?,
            Pending::Later(tensors) => {
                let reads = tensors.into_iter().fold(Transaction::default(), Transaction::register);
                reads.try_execute().map_err(|error| error.to_string())?
            }
        };
        if data.len() != count {
            return Err(format!("{} of {count} tensors were read", data.len()));
        }
        data.into_iter()
            .map(|data| data.convert::<f32>().try_into_vec::<f32>().map_err(|error| format!("{error:?}")))
            .collect()
    }
}
