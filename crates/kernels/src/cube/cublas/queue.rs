//! A product in the order of the device's other work.
//!
//! CubeCL keeps its streams to itself. A product runs on a stream of its own, between two events of the whole context:
//! it waits for all that was queued before it, and all that is queued later waits for it.

#![expect(unsafe_code, reason = "calls NVIDIA's libraries, which take pointers")]

use std::ffi::c_void;

use cubecl::server::{BufferBinding, ServerError, ServerStorage};
use cubecl_environment::backtrace::BackTrace;
use cubecl_server::stream::failed_writing;
use cudarc::cublaslt::result as lt;
use cudarc::driver::{result as driver, sys as driver_sys};

use crate::cube::cublas::library::{Library, Plan, Server, WORKSPACE, set_bias};

impl Library {
    /// Queues `out = a b + bias`. If it fails, reading the result, or what is computed from it, is the error.
    pub fn enqueue(&'static self, plan: Plan, inputs: [BufferBinding; 3], out: BufferBinding) {
        self.device.submit(move |server: &mut Server| {
            let queue = out.stream;
            if let Err(error) = self.run(server, &plan, inputs, out.clone()) {
                failed_writing(server, queue, vec![out], error);
            }
        });
    }

    fn run(
        &self,
        server: &mut Server,
        plan: &Plan,
        inputs: [BufferBinding; 3],
        out: BufferBinding,
    ) -> Result<(), ServerError> {
        let queue = out.stream;
        let mut resources = Vec::with_capacity(4);
        for buffer in inputs.into_iter().chain([out]) {
            resources.push(server.get_resource(buffer, queue)?);
        }
        let addresses = [0, 1, 2, 3].map(|n: usize| resources[n].resource().ptr);
        self.multiply(plan, addresses).map_err(|problem| ServerError::Generic {
            reason: format!("a product of matrices by cuBLASLt failed: {problem}"),
            backtrace: BackTrace::capture(),
        })
    }

    /// `addresses`: of `a`, `b`, the bias and the result.
    fn multiply(&self, plan: &Plan, [a, b, bias, result]: [driver_sys::CUdeviceptr; 4]) -> Result<(), String> {
        self.wait_for_queued().map_err(|error| error.to_string())?;
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
        .map_err(|error| error.to_string())?;
        self.hold_later().map_err(|error| error.to_string())
    }

    /// Makes the library's stream wait for all work of the context so far.
    fn wait_for_queued(&self) -> Result<(), driver::DriverError> {
        let [before, _] = self.events;
        // SAFETY: context, stream and event live as long as the process.
        unsafe {
            (self.record_all)(self.context, before).result()?;
            driver::stream::wait_event(self.stream, before, driver_sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)
        }
    }

    /// Makes all later work of the context wait for the library's stream.
    fn hold_later(&self) -> Result<(), driver::DriverError> {
        let [_, after] = self.events;
        // SAFETY: as in `wait_for_queued`.
        unsafe {
            driver::event::record(after, self.stream)?;
            (self.hold_all)(self.context, after).result()
        }
    }
}
