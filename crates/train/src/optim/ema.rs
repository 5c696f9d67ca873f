//! Exponential moving average (EMA) of the weights (Polyak and Juditsky, 1992). The decay warms up as in TensorFlow's
//! `ExponentialMovingAverage` with `num_updates`: at the n-th update it is min(decay, (1 + n) / (10 + n)).

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Device, Tensor, TensorData};
use dualenc_kernels::CHUNK;
use dualenc_model::parameters::{self, ParamInfo, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};
use rayon::prelude::*;

use crate::error::TrainError;
use crate::optim::clip::changed;
use crate::optim::state_tensor::StateTensor;

/// Averages by parameter path. Each starts at the value of its parameter before the parameter's first update.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    on_host: bool,
    averages: BTreeMap<String, Average>,
    /// Paths of the parameters that the current stage trains.
    live: BTreeSet<String>,
}

#[derive(Debug)]
struct Average {
    shape: Vec<usize>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Host(Vec<f32>),
    Device(Box<Tensor<1>>),
}

impl Average {
    fn state(&self) -> StateTensor<'_> {
        let shape = self.shape.clone();
        match &self.values {
            Values::Host(values) => StateTensor::of(shape, values.as_slice()),
            Values::Device(values) => {
                StateTensor::read_by(shape, || parameters::host(values.as_ref().clone()).map(|read| read.values))
            }
        }
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Host(values) => values.len(),
            Self::Device(values) => values.dims()[0],
        }
    }
}

impl Ema {
    /// Creates an empty average. `on_host`: as in [`Optimizer::new`](crate::Optimizer::new).
    pub fn new(decay: f64, on_host: bool) -> Self {
        Self { decay, on_host, averages: BTreeMap::new(), live: BTreeSet::new() }
    }

    /// Replaces all averages by saved ones. `model`: with every parameter trainable that any stage trains. `trained`:
    /// with those trainable that were updated before; each must have an average. `None`: none was.
    ///
    /// # Errors
    /// [`ModelError::State`] with a line for each average that is missing, unexpected or of another shape; the averages
    /// are unchanged then.
    pub fn restore(
        &mut self,
        saved: BTreeMap<String, HostTensor>,
        model: &DualEncoder,
        trained: Option<&DualEncoder>,
    ) -> Result<(), ModelError> {
        let training = |model| parameters::list(model).into_iter().filter(|info: &ParamInfo| info.trains);
        let expected: BTreeMap<_, _> = training(model).map(|info| (info.path, info.shape)).collect();
        let mut problems = Vec::new();
        for info in trained.into_iter().flat_map(training).filter(|info| !saved.contains_key(&info.path)) {
            problems.push(format!("{}: its average is not in the file", info.path));
        }
        for (path, HostTensor { shape: found, .. }) in &saved {
            match expected.get(path) {
                None => problems.push(format!("{path}: an average in the file, but its parameter does not train")),
                Some(shape) if shape != found => {
                    problems.push(format!("{path}: expected an average {shape:?}, found {found:?}"));
                }
                Some(_) => {}
            }
        }
        if !problems.is_empty() {
            return Err(ModelError::State { problems });
        }
        self.averages = self.average(saved, &model.device());
        Ok(())
    }

    fn average(&self, named: BTreeMap<String, HostTensor>, device: &Device) -> BTreeMap<String, Average> {
        let values = |values: Vec<f32>| {
            if self.on_host {
                return Values::Host(values);
            }
            let count = values.len();
            Values::Device(Box::new(Tensor::from_data(TensorData::new(values, [count]), device)))
        };
        let average = |tensor: HostTensor| Average { shape: tensor.shape, values: values(tensor.values) };
        named.into_iter().map(|(path, tensor)| (path, average(tensor))).collect()
    }

    /// Starts a stage: averages the trainable parameters of `model` from now on. Averages of other parameters stay as
    /// they are.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
    pub fn begin(&mut self, model: &DualEncoder) -> Result<(), ModelError> {
        let training: Vec<_> = parameters::list(model).into_iter().filter(|info| info.trains).collect();
        self.live = training.into_iter().map(|info| info.path).collect();
        if self.live.iter().all(|path| self.averages.contains_key(path)) {
            return Ok(());
        }
        let values = parameters::collect(model, parameters::ParamFilter::Trainable)?;
        for (path, average) in self.average(values, &model.device()) {
            self.averages.entry(path).or_insert(average);
        }
        Ok(())
    }

    /// Averages in the `value` that the `count`-th update of the parameter at `path` produced, and returns it.
    /// `control`: of an update of which the device decides whether it changes anything.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when the parameter has no average, or one that does not fit it.
    pub fn take<const D: usize>(
        &mut self,
        path: &str,
        value: Tensor<D>,
        count: u64,
        control: Option<&Tensor<1>>,
    ) -> Result<Tensor<D>, TrainError> {
        if !self.live.contains(path) {
            return Ok(value);
        }
        let internal = |problem: &str| TrainError::Internal(format!("`{path}` is not averaged: {problem}"));
        let average = self.averages.get_mut(path).ok_or_else(|| internal("it has no average"))?;
        if average.values.len() != value.shape().num_elements() || average.shape != value.dims() {
            let problem = format!("it has the shape {:?}, its average {:?}", value.dims(), average.shape);
            return Err(internal(&problem));
        }
        let count = count as f64;
        let share = 1.0 - self.decay.min((1.0 + count) / (10.0 + count));
        let (shape, device) = (value.shape(), value.device());
        match &mut average.values {
            // Nothing else owns the value, so its memory is read without a copy.
            Values::Host(sums) if value.dtype() == DType::F32 => {
                let values = parameters::host(value)?.values;
                let share = share as f32;
                let chunks = sums.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
                chunks.for_each(|(sums, values)| {
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * (value - *sum));
                });
                Ok(Tensor::from_data(TensorData::new(values, shape), &device))
            }
            Values::Host(_) => Err(internal(&format!("it trains in {:?}, not in f32", value.dtype()))),
            Values::Device(sums) => {
                let flat = value.clone().reshape([shape.num_elements()]);
                let old = sums.as_ref().clone();
                let new = old.clone() + (flat - old.clone()) * share;
                **sums = if let Some(control) = control { changed(control, new, old) } else { new };
                Ok(value)
            }
        }
    }

    /// The averages by path, for a checkpoint. Nothing is copied yet, and host memory never.
    pub fn state(&self) -> BTreeMap<String, StateTensor<'_>> {
        self.averages.iter().map(|(path, average)| (path.clone(), average.state())).collect()
    }

    /// Replaces the parameters of `model` by their averages.
    pub fn averaged(&self, model: DualEncoder) -> DualEncoder {
        parameters::update(model, &mut UseAverages { averages: &self.averages })
    }
}

struct UseAverages<'a> {
    averages: &'a BTreeMap<String, Average>,
}

impl ParamUpdate for UseAverages<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.averages.get(path).map(|average| &average.values) {
            None => value,
            Some(Values::Host(values)) => {
                Tensor::from_data(TensorData::new(values.clone(), value.shape()), &value.device())
            }
            Some(Values::Device(values)) => values.as_ref().clone().reshape(value.shape()),
        }
    }
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::FloatDType;

    use super::*;

    const MATRIX: &str = "text_projection.weight";

    /// A small model that trains whole, and its averages.
    fn started() -> (DualEncoder, Ema) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/dual/vit_bert");
        let model = parameters::unlock(DualEncoder::from_pretrained(dir, &Device::flex()).unwrap());
        let mut ema = Ema::new(0.9, true);
        ema.begin(&model).unwrap();
        (model, ema)
    }

    fn saved(ema: &Ema) -> BTreeMap<String, HostTensor> {
        let host = |state: StateTensor<'_>| {
            let values = state.values().unwrap().into_owned();
            HostTensor { shape: state.shape, values }
        };
        ema.state().into_iter().map(|(path, state)| (path, host(state))).collect()
    }

    fn ones(shape: [usize; 2]) -> Tensor<2> {
        Tensor::ones(shape, &Device::flex())
    }

    fn message(ema: &mut Ema, path: &str, value: Tensor<2>) -> String {
        let error = ema.take(path, value, 1, None).unwrap_err();
        assert!(matches!(error, TrainError::Internal(_)), "{error}");
        error.to_string()
    }

    #[test]
    fn values_that_do_not_fit_are_internal_errors() {
        let (model, mut ema) = started();
        let shape = [model.text_projection.width(), model.text_projection.dim()];
        let [rows, columns] = shape;
        assert!(rows != columns);
        assert!(message(&mut ema, MATRIX, ones([rows, 1])).contains("is not averaged: it has the shape"));
        assert!(message(&mut ema, MATRIX, ones([columns, rows])).contains("its average ["));
        let half = ones(shape).cast(FloatDType::F16);
        assert!(message(&mut ema, MATRIX, half).contains("it trains in F16, not in f32"));
        assert_eq!(
            parameters::host(ema.take(MATRIX, ones(shape), 1, None).unwrap()).unwrap().values,
            vec![1.0; rows * columns]
        );
        ema.averages.remove(MATRIX);
        assert!(message(&mut ema, MATRIX, ones(shape)).contains("it has no average"));
        // What the stage does not train is passed through.
        assert_eq!(ema.take("locked", ones([1, 2]), 1, None).unwrap().dims(), [1, 2]);
    }

    #[test]
    fn restore_refuses_other_names_than_trained() {
        let (model, ema) = started();
        let refused = |averages: BTreeMap<String, HostTensor>| {
            let (_, mut fresh) = started();
            let text = fresh.restore(averages, &model, Some(&model)).unwrap_err().to_string();
            assert_eq!(saved(&fresh), saved(&ema), "{text}");
            text
        };
        let mut averages = saved(&ema);
        averages.remove(MATRIX);
        assert!(refused(averages.clone()).contains("text_projection.weight: its average is not in the file"));
        averages.insert(MATRIX.to_owned(), HostTensor { shape: vec![1], values: vec![1.0] });
        assert!(refused(averages).contains("text_projection.weight: expected an average ["));
        let mut averages = saved(&ema);
        averages.insert("other".to_owned(), HostTensor { shape: vec![1], values: vec![1.0] });
        assert!(refused(averages).contains("other: an average in the file, but its parameter does not train"));
        assert!(refused(BTreeMap::new()).contains("... and "));
        let mut fresh = Ema::new(0.9, true);
        fresh.restore(BTreeMap::new(), &model, None).unwrap();
        fresh.restore(saved(&ema), &model, Some(&model)).unwrap();
        assert_eq!(saved(&fresh), saved(&ema));
    }
}
