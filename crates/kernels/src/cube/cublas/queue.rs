//! A product in the order of the device's other work.
//!
//! CubeCL keeps its streams to itself. A product runs on a stream of its own, between two events of the whole context:
//! it waits for all that was queued before it, and all that is queued later waits for it.

#![expect(unsafe_code, reason = "calls NVIDIA's libraries, which take pointers")]

use std::ffi::c_void;
use std::sync::OnceLock;

use cubecl::server::{Handle, ServerError, ServerStorage};
use cudarc::cublaslt::result as lt;
use cudarc::driver::{result as driver, sys as driver_sys};

use crate::cube::cublas::library::{Library, Plan, Server, WORKSPACE, set_bias};

/// Why a product failed, after which the process computes no more.
static FAILURE: OnceLock<String> = OnceLock::new();

impl Library {
    /// Queues `out = a b + bias`.
    ///
    /// # Panics
    ///
    /// If an earlier product failed. It fills its result with NaN, so that nothing takes it for a result until then.
    pub fn enqueue(&'static self, plan: Plan, inputs: [Handle; 3], out: Handle) {
        if let Some(reason) = FAILURE.get() {
            panic!("{reason}");
        }
        self.device.submit(move |server: &mut Server| {
            if let Err(reason) = self.run(server, &plan, inputs, &out) {
                let _ = FAILURE.set(format!("a product of matrices by cuBLASLt failed: {reason}"));
                self.fill_with_nan(server, out);
            }
        });
    }

    fn run(&self, server: &mut Server, plan: &Plan, inputs: [Handle; 3], out: &Handle) -> Result<(), String> {
        let queue = out.stream;
        let mut resources = Vec::with_capacity(4);
        for handle in inputs.into_iter().chain([out.clone()]) {
            resources
                .push(server.get_resource(handle.binding(), queue).map_err(|error: ServerError| error.to_string())?);
        }
        let [a, b, bias, result] = [0, 1, 2, 3].map(|n: usize| resources[n].resource().ptr);
        let text = |error: &dyn std::fmt::Display| error.to_string();
        self.wait_for_queued().map_err(|error| text(&error))?;
        if plan.shape.biased {
            set_bias(plan.operation, bias).ok_or("it does not take the bias")?;
        }
        let (one, zero) = (1.0_f32, 0.0_f32);
        let [of_b, of_a, of_out] = plan.layouts;
        let address = |pointer: driver_sys::CUdeviceptr| pointer as *mut c_void;
        // SAFETY: the matrices have the shapes of the plan and stay allocated until all later work of this context,
        // and so their next use, waits for the product.
        unsafe {
            lt::matmul(
                self.handle,
                plan.operation,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&zero).cast(),
                address(b),
                of_b,
                address(a),
                of_a,
                address(result),
                of_out,
                address(result),
                of_out,
                &raw const plan.algorithm,
                address(self.workspace),
                WORKSPACE,
                self.stream.cast(),
            )
        }
        .map_err(|error| text(&error))?;
        self.hold_later().map_err(|error| text(&error))
    }

    /// Makes the library's stream wait for all work of the context so far.
    fn wait_for_queued(&self) -> Result<(), driver::DriverError> {
        let [before, _] = self.events;
        // SAFETY: context, stream and event live as long as the process.
        unsafe {
            driver_sys::cuCtxRecordEvent(self.context, before).result()?;
            driver::stream::wait_event(self.stream, before, driver_sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)
        }
    }

    /// Makes all later work of the context wait for the library's stream.
    fn hold_later(&self) -> Result<(), driver::DriverError> {
        let [_, after] = self.events;
        // SAFETY: as in `wait_for_queued`.
        unsafe {
            driver::event::record(after, self.stream)?;
            driver_sys::cuCtxWaitEvent(self.context, after).result()
        }
    }

    /// A device that cannot do this either reports its own error at the next read.
    fn fill_with_nan(&self, server: &mut Server, out: Handle) {
        let queue = out.stream;
        let Ok(memory) = server.get_resource(out.binding(), queue) else { return };
        let memory = memory.resource();
        // All bits set: NaN in every float.
        // SAFETY: the memory is that of the result.
        let filled = self
            .wait_for_queued()
            .and_then(|()| unsafe { driver::memset_d8_async(memory.ptr, 0xff, memory.size as usize, self.stream) });
        let _ = filled.and_then(|()| self.hold_later());
    }
}
