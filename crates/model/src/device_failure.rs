//! Why a device failed, from the message of its backend. Backends wrap the cause in several lines, repeat it and add a
//! backtrace; here it is one line.

use std::fmt::{Display, Formatter};

/// Why a device failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFailure {
    /// It has no room for an allocation.
    OutOfMemory {
        /// Size of the allocation; `None` if the backend does not say.
        bytes: Option<u64>,
    },
    /// It is gone until the process ends.
    Lost(String),
    /// It cannot run a kernel, such as one of a float type that it lacks.
    Unsupported(String),
    /// Anything else.
    Other(String),
}

/// What comes before the size of an allocation that failed: `IoError` of CubeCL 0.11.
const SIZES: [&str; 4] =
    ["out of device memory allocating ", "can't allocate buffer of size: ", "Can't allocate ", "No room for "];

/// Other messages of a full memory: `LaunchError` of CubeCL, `Error` of wgpu and `DeviceError` of wgpu-core 30, the
/// results of Vulkan and CUDA.
const FULL: [&str; 6] = [
    "An out-of-memory error happened",
    "Out of Memory",
    "Not enough memory left",
    "OUT_OF_DEVICE_MEMORY",
    "OUT_OF_HOST_MEMORY",
    "CUDA_ERROR_OUT_OF_MEMORY",
];

/// Messages of a device that is gone: `DevicePoison` of CubeCL, wgpu-core, Vulkan and CUDA.
const LOST: [&str; 6] = [
    "device is poisoned",
    "device was poisoned",
    "device is lost",
    "DEVICE_LOST",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
];

/// Messages of a kernel that cannot run: `LaunchError`, `CompilationError` and `ResourceLimitError` of CubeCL.
const UNSUPPORTED: [&str; 5] = [
    "caused the compilation to fail",
    "A compilation error happened during launch",
    "Too many resources were requested",
    "Unsupported instruction",
    "unsupported instruction",
];

impl DeviceFailure {
    /// The failure that `message` tells of; `None` if it is none that devices have.
    pub fn recognise(message: &str) -> Option<Self> {
        let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        let bytes = SIZES.iter().find_map(|before| bytes_after(message, before));
        if bytes.is_some() || has(&FULL) {
            Some(Self::OutOfMemory { bytes })
        } else if has(&LOST) {
            Some(Self::Lost(cause(message)))
        } else if has(&UNSUPPORTED) {
            Some(Self::Unsupported(cause(message)))
        } else {
            None
        }
    }

    /// The failure of a device with this message.
    pub fn new(message: &str) -> Self {
        Self::recognise(message).unwrap_or_else(|| Self::Other(cause(message)))
    }
}

impl Display for DeviceFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfMemory { bytes: None } => f.write_str("it is out of memory"),
            Self::OutOfMemory { bytes: Some(bytes) } => {
                let mib = *bytes as f64 / f64::from(1 << 20);
                write!(f, "it is out of memory: there is no room for {bytes} bytes ({mib:.1} MiB)")
            }
            Self::Lost(cause) => write!(f, "it was lost ({cause})"),
            Self::Unsupported(cause) => write!(f, "it cannot run a kernel ({cause})"),
            Self::Other(cause) => f.write_str(cause),
        }
    }
}

fn bytes_after(message: &str, before: &str) -> Option<u64> {
    let (_, rest) = message.split_once(before)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// The innermost cause of a message, on one line, without backtraces.
fn cause(message: &str) -> String {
    let is_noise = |line: &&str| {
        let frame = line.split_once(':').is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        let heading = ["Backtrace", "stack backtrace", "No backtrace", "Caused by", "at /", "at ./"];
        line.is_empty() || frame || heading.iter().any(|start| line.starts_with(start))
    };
    let innermost = message.rsplit("Caused by:").next().unwrap_or(message);
    // wgpu says in one line which call failed, and in the next one why.
    let is_call = |line: &&str| line.starts_with("In Device::") || line.starts_with("In Queue::");
    let lines = |text: &'_ str| {
        let mut told = text.lines().map(str::trim).filter(|line| !is_noise(line));
        let first = told.next()?;
        Some(match told.next().filter(|_| is_call(&first)) {
            Some(why) => format!("{first}: {why}"),
            None => first.to_owned(),
        })
    };
    let line = lines(innermost).or_else(|| lines(message));
    line.as_deref().unwrap_or("no reason is given").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of CubeCL, with the backtrace that it has in builds for debugging.
    fn cubecl(cause: &str) -> String {
        let frames =
            "   0: std::backtrace_rs::backtrace::libunwind::trace\n             at /rustc/library/std/src/lib.rs:1:2";
        format!("An error happened during execution\nCaused by:\n  {cause}\nBacktrace:\n{frames}\n")
    }

    #[test]
    fn full_memory_is_found_with_its_bytes() {
        let bytes = |text: &str| match DeviceFailure::new(&cubecl(text)) {
            DeviceFailure::OutOfMemory { bytes } => bytes,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(
            bytes("out of device memory allocating 1610612736 bytes\nNo backtrace available"),
            Some(1 << 29 | 1 << 30)
        );
        assert_eq!(bytes("can't allocate buffer of size: 99\n0: frame"), Some(99));
        assert_eq!(bytes("Can't allocate 7 bytes: every page size the memory tracks still holds"), Some(7));
        assert_eq!(bytes("An out-of-memory error happened during launch\nCaused by:\n  full"), None);
        assert_eq!(bytes("wgpu error: Out of Memory"), None);
        assert_eq!(bytes("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"), None);
        let text = DeviceFailure::OutOfMemory { bytes: Some(3 << 19) }.to_string();
        assert_eq!(text, "it is out of memory: there is no room for 1572864 bytes (1.5 MiB)");
    }

    #[test]
    fn other_failures_keep_their_cause_on_one_line() {
        let text = |message: &str| DeviceFailure::new(message).to_string();
        let poisoned =
            "The device is poisoned\nCaused by:\n  Unknown: driver reset\nBacktrace:\nNo backtrace available";
        assert_eq!(text(&cubecl(poisoned)), "it was lost (Unknown: driver reset)");
        assert_eq!(text("wgpu error: Parent device is lost"), "it was lost (wgpu error: Parent device is lost)");
        let launch = [
            "A launch error happened\nCaused by:\n  A compilation error happened during launch\nCaused by:\n  ",
            "An unsupported instruction caused the compilation to fail\nCaused by:\n  bf16 is not supported.\n",
            "Backtrace:\n   0: frame\n             at ./src/lib.rs:3:4",
        ];
        assert_eq!(text(&launch.concat()), "it cannot run a kernel (bf16 is not supported)");
        assert_eq!(text(&cubecl("the moon is full")), "the moon is full");
        let shader = "An error caused the compilation to fail\nCaused by:\n  Validation Error\n\nCaused by:\n  \
                      In Device::create_shader_module, label = 'sum'\n    Shader validation error: no u64\n";
        let call = "In Device::create_shader_module, label = 'sum'";
        assert_eq!(text(shader), format!("it cannot run a kernel ({call}: Shader validation error: no u64)"));
        assert_eq!(text(""), "no reason is given");
        assert_eq!(DeviceFailure::recognise("index out of bounds: the len is 3"), None);
    }
}
