//! Copies to the host, queued. Burn's own reads wait at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{DType, Shape, Tensor, TensorData};
#[cfg(feature = "fusion")]
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous_aligned;
use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::future::block_on;
use cubecl::server::{CopyDescriptor, ServerError};

/// A copy that is queued on a device. It is waited for in any case: wgpu uses the memory it goes to again.
pub(crate) struct Queued {
    /// `None` once it was waited for.
    bytes: Option<Copying>,
    forms: Vec<(Shape, DType)>,
}

type Copying = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, ServerError>> + Send>>;

/// Queues a copy of `tensors`, which are on one device; returns them if that is not one of CubeCL's.
pub(crate) fn queue(tensors: Vec<Tensor<1>>) -> Result<Queued, Vec<Tensor<1>>> {
    let is_cube = |x: &Tensor<1>| matches!(x.device().as_dispatch(), burn::backend::DispatchDevice::Cube(_));
    if tensors.is_empty() || !tensors.iter().all(is_cube) {
        return Err(tensors);
    }
    let (mut client, mut forms, mut copies) = (None, Vec::new(), Vec::new());
    for tensor in tensors {
        let DispatchTensorKind::Cube(BackendTensor::Float(tensor)) = tensor.into_dispatch().kind else {
            unreachable!("a tensor of floats outside of the graph, on a device of CubeCL, is one of its backend")
        };
        #[cfg(feature = "fusion")]
        let tensor = tensor.client.clone().resolve_tensor_float::<CubeBackend>(tensor);
        let tensor = into_contiguous_aligned(tensor);
        let (shape, strides) = (tensor.meta.shape().clone(), tensor.meta.strides().clone());
        forms.push((shape.clone(), tensor.dtype));
        copies.push(CopyDescriptor::new(tensor.handle.clone().binding(), shape, strides, tensor.dtype.size()));
        client = Some(tensor.client);
    }
    match client {
        Some(client) => Ok(Queued { bytes: Some(Box::pin(lasting(client).read_tensor_async(copies))), forms }),
        None => Err(Vec::new()),
    }
}

/// A client of the same device that lives as long as the process: a copy that is not waited for yet refers to it.
fn lasting(client: Client) -> &'static Client {
    static CLIENTS: Mutex<Vec<&'static Client>> = Mutex::new(Vec::new());
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = clients.iter().find(|known| known.service_id() == client.service_id()) {
        return known;
    }
    let client: &'static Client = Box::leak(Box::new(client));
    clients.push(client);
    client
}

impl Queued {
    /// Number of tensors.
    pub fn count(&self) -> usize {
        self.forms.len()
    }

    /// Waits for the copy.
    pub fn wait(mut self) -> Result<Vec<TensorData>, String> {
        let Some(bytes) = self.bytes.take() else { return Err("a copy was waited for twice".to_owned()) };
        let bytes = block_on(bytes).map_err(|error| error.to_string())?;
        let data = |(bytes, (shape, dtype))| TensorData::from_bytes(bytes, shape, dtype);
        Ok(bytes.into_iter().zip(std::mem::take(&mut self.forms)).map(data).collect())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            // Whoever needs the values waits for them, and learns what went wrong.
            let _ = block_on(bytes);
        }
    }
}
