//! Which linear layers and MLPs have products in bf16.

#[cfg(feature = "flex")]
use std::cell::Cell;

#[cfg(feature = "flex")]
use crate::cpu::bf16::unit::Unit;

#[cfg(feature = "flex")]
thread_local! {
    static UNIT: Cell<Option<Unit>> = const { Cell::new(None) };
}

/// Runs `work` with the factors of the products of [`linear`](crate::linear), [`linear3`](crate::linear3) and
/// [`mlp`](crate::mlp) rounded to bf16, for `f32` tensors on the CPU, on this thread. Their backward passes round the
/// factors of the gradients of inputs and weights, wherever they run. Sums are in `f32`.
///
/// # Panics
///
/// Without [`bf16_instructions`](crate::bf16_instructions).
pub fn with_bf16_products<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "flex")]
    if let Some(unit) = Unit::fastest() {
        return with_products_by(unit, work);
    }
    let _ = work;
    panic!("products in bf16 without instructions for them")
}

#[cfg(feature = "flex")]
pub(crate) fn with_products_by<T>(unit: Unit, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Unit>);
    impl Drop for Restore {
        fn drop(&mut self) {
            UNIT.set(self.0);
        }
    }
    let _restore = Restore(UNIT.replace(Some(unit)));
    work()
}

/// What multiplies factors in bf16 inside of [`with_bf16_products`]; `None` outside.
#[cfg(feature = "flex")]
pub(crate) fn unit() -> Option<Unit> {
    UNIT.get()
}
