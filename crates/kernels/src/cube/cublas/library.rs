//! The library of a device, and what it needs to know of a product.
//!
//! cuBLASLt counts matrices by columns. A matrix by rows is its own transpose by columns, so that the library is asked
//! for `out^T = b^T a^T`: its first matrix is `b`, and its second `a`.

#![expect(unsafe_code, reason = "calls NVIDIA's libraries, which take pointers")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of_val;
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::DType;
use cubecl::client::Client;
use cubecl::cuda::CudaRuntime;
use cubecl::device_handle::DeviceHandle;
use cubecl_runtime::runtime::Runtime;
use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys as lt_sys;
use cudarc::driver::{result as driver, sys as driver_sys};

/// What runs the work of a CUDA device.
pub type Server = <CudaRuntime as Runtime>::Server;

/// Bytes to which the first value of each matrix is aligned, at least; what copies of tiles by the hardware need.
pub const ALIGNMENT: u32 = 16;

/// Bytes of memory that a product may use beside its matrices: what NVIDIA recommends for Hopper GPUs (cuBLAS
/// documentation, `cublasSetWorkspace`).
pub const WORKSPACE: usize = 32 << 20;

/// Set to `0`, it leaves products to Burn's kernels.
const SWITCH: &str = "DUALENC_CUBLASLT";

/// `cuCtxRecordEvent` and `cuCtxWaitEvent`, which order all work of a device. Drivers of CUDA 12.5 and newer have them;
/// they are looked up by name, so that an older toolkit can build this.
type OfContext = unsafe extern "C" fn(driver_sys::CUcontext, driver_sys::CUevent) -> driver_sys::CUresult;

/// A product `a b` of `[rows, inner]` and `[inner, columns]`, `batch` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub batch: usize,
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
    /// Whether `a` is `[inner, rows]` in memory, and `b` `[columns, inner]`.
    pub transposed: [bool; 2],
    /// Whether a vector `[columns]` is added to each row.
    pub biased: bool,
}

/// How the library computes a product. Lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub operation: lt_sys::cublasLtMatmulDesc_t,
    /// Of `b`, `a` and the result.
    pub layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
    pub algorithm: lt_sys::cublasLtMatmulAlgo_t,
    pub shape: Shape,
}

/// cuBLASLt for one device, with a stream of its own.
pub struct Library {
    pub context: driver_sys::CUcontext,
    pub stream: driver_sys::CUstream,
    /// Recorded before a product, and after it.
    pub events: [driver_sys::CUevent; 2],
    /// Records an event after all work of the context so far.
    pub record_all: OfContext,
    /// Makes all later work of the context wait for an event.
    pub hold_all: OfContext,
    pub handle: lt_sys::cublasLtHandle_t,
    pub workspace: driver_sys::CUdeviceptr,
    pub device: DeviceHandle<Server>,
    plans: Mutex<HashMap<(DType, Shape), Option<Plan>>>,
}

// SAFETY: handles and plans of cuBLASLt may be used on any thread with the device's context. Stream, events and
// workspace are used on the device's thread only, and so are plans once they are made.
unsafe impl Send for Library {}
// SAFETY: as above; the map of plans is behind a lock.
unsafe impl Sync for Library {}
// SAFETY: as above.
unsafe impl Send for Plan {}

impl Library {
    /// That of the device of `client`, loaded at the first call; `None` if it is no CUDA device, or has no library.
    pub fn of(client: &Client) -> Option<&'static Self> {
        static LIBRARIES: OnceLock<Mutex<HashMap<u16, Option<&'static Library>>>> = OnceLock::new();
        let service = client.service_id();
        if service.service != std::any::TypeId::of::<Server>() {
            return None;
        }
        let libraries = LIBRARIES.get_or_init(Mutex::default);
        let mut libraries = libraries.lock().unwrap_or_else(PoisonError::into_inner);
        *libraries.entry(service.device.index_id).or_insert_with(|| {
            let is_off = std::env::var_os(SWITCH).is_some_and(|value| value == "0");
            let loaded = (!is_off).then(|| Self::load(service.device)).flatten();
            loaded.map(|library| &*Box::leak(Box::new(library)))
        })
    }

    fn load(device: cubecl::device::DeviceId) -> Option<Self> {
        // SAFETY: only loads the library.
        if !unsafe { lt_sys::is_culib_present() } {
            return None;
        }
        // SAFETY: the driver is loaded, since CubeCL runs on it, and these are its functions of these names.
        let of_context = |name: &[u8]| unsafe { driver_sys::culib().get::<OfContext>(name) }.ok().map(|found| *found);
        let (record_all, hold_all) = (of_context(b"cuCtxRecordEvent\0")?, of_context(b"cuCtxWaitEvent\0")?);
        let ordinal = driver::device::get(i32::from(device.index_id)).ok()?;
        // SAFETY: the device is valid, since CubeCL runs on it; its primary context is CubeCL's and never released.
        unsafe {
            let context = driver::primary_ctx::retain(ordinal).ok()?;
            driver::ctx::set_current(context).ok()?;
            let event = || driver::event::create(driver_sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).ok();
            Some(Self {
                context,
                stream: driver::stream::create(driver::stream::StreamKind::NonBlocking).ok()?,
                events: [event()?, event()?],
                record_all,
                hold_all,
                handle: lt::create_handle().ok()?,
                workspace: driver::malloc_sync(WORKSPACE).ok()?,
                device: DeviceHandle::new(device),
                plans: Mutex::default(),
            })
        }
    }

    /// The library's name and version.
    pub fn name(&self) -> String {
        // SAFETY: takes nothing.
        let version = unsafe { lt_sys::cublasLtGetVersion() };
        // `cublasLt.h`: major, two digits of minor, two of patch.
        format!("cuBLASLt {}.{}", version / 10_000, version % 10_000 / 100)
    }

    /// How `shape` is computed of matrices of `dtype`; `None` if the library does not.
    pub fn plan(&self, dtype: DType, shape: Shape) -> Option<Plan> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        *plans.entry((dtype, shape)).or_insert_with(|| self.make_plan(dtype, shape))
    }

    fn make_plan(&self, dtype: DType, shape: Shape) -> Option<Plan> {
        // The thread that asks first may have another device's context.
        // SAFETY: the context is CubeCL's and never released.
        unsafe { driver::ctx::set_current(self.context) }.ok()?;
        // Sums are in `f32`. Factors of `f32` products are rounded to TF32, as Burn's kernels with tensor cores do;
        // NVIDIA_TF32_OVERRIDE=0 keeps them.
        let (values, sums) = match dtype {
            DType::F32 => (lt_sys::cudaDataType::CUDA_R_32F, lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32),
            DType::F16 => (lt_sys::cudaDataType::CUDA_R_16F, lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F),
            DType::BF16 => (lt_sys::cudaDataType::CUDA_R_16BF, lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F),
            _ => return None,
        };
        let Shape { batch, rows, inner, columns, transposed: [a_transposed, b_transposed], biased } = shape;
        let operation = lt::create_matmul_desc(sums, lt_sys::cudaDataType::CUDA_R_32F).ok()?;
        let set = |attribute, value: &u32| {
            // SAFETY: the operation lives, and the value has the size that is passed.
            unsafe { lt::set_matmul_desc_attribute(operation, attribute, pointer(value), size_of_val(value)) }.ok()
        };
        set(lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &u32::from(b_transposed))?;
        set(lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB, &u32::from(a_transposed))?;
        if biased {
            let epilogue = lt_sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            set(lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            // An address no better aligned than a bias can be.
            set_bias(operation, self.workspace + u64::from(ALIGNMENT))?;
        }
        let layout = |height: usize, width: usize| {
            let layout = lt::create_matrix_layout(values, height as u64, width as u64, height as i64).ok()?;
            if batch > 1 {
                use lt_sys::cublasLtMatrixLayoutAttribute_t as Attribute;
                let (count, stride) = (i32::try_from(batch).ok()?, (height * width) as i64);
                // SAFETY: the layout lives, and the values have the sizes that are passed.
                unsafe {
                    let batches = Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
                    lt::set_matrix_layout_attribute(layout, batches, pointer(&count), size_of_val(&count)).ok()?;
                    let offset = Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                    lt::set_matrix_layout_attribute(layout, offset, pointer(&stride), size_of_val(&stride)).ok()?;
                }
            }
            Some(layout)
        };
        let of_b = if b_transposed { layout(inner, columns) } else { layout(columns, inner) }?;
        let of_a = if a_transposed { layout(rows, inner) } else { layout(inner, rows) }?;
        let layouts = [of_b, of_a, layout(columns, rows)?];
        let algorithm = self.algorithm(operation, layouts)?;
        Some(Plan { operation, layouts, algorithm, shape })
    }

    fn algorithm(
        &self,
        operation: lt_sys::cublasLtMatmulDesc_t,
        [of_b, of_a, of_out]: [lt_sys::cublasLtMatrixLayout_t; 3],
    ) -> Option<lt_sys::cublasLtMatmulAlgo_t> {
        use lt_sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = lt::create_matmul_pref().ok()?;
        // SAFETY: the preference lives until the end, and the values have the sizes that are passed.
        unsafe {
            let bytes = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            lt::set_matmul_pref_attribute(preference, bytes, pointer(&WORKSPACE), size_of_val(&WORKSPACE)).ok()?;
            for attribute in [
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                let (value, size) = (pointer(&ALIGNMENT), size_of_val(&ALIGNMENT));
                lt::set_matmul_pref_attribute(preference, attribute, value, size).ok()?;
            }
            let found = lt::get_matmul_algo_heuristic(self.handle, operation, of_b, of_a, of_out, of_out, preference);
            lt::destroy_matmul_pref(preference).ok()?;
            Some(found.ok()?.algo)
        }
    }
}

/// Where the operation finds its bias.
pub fn set_bias(operation: lt_sys::cublasLtMatmulDesc_t, bias: driver_sys::CUdeviceptr) -> Option<()> {
    let attribute = lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
    // SAFETY: the operation lives, and an address of the device has the size of a pointer.
    unsafe { lt::set_matmul_desc_attribute(operation, attribute, pointer(&bias), size_of_val(&bias)) }.ok()
}

fn pointer<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}
