//! Which layers of a transformer are pooled: as a user asks for them, as a tower has them, and how their pooled outputs
//! are collected while the blocks run.

use std::fmt;

use burn::tensor::Tensor;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The layers that a user asks for (`image_layer`, `text_layer`), each from 1, or from -1 for the last. A config has
/// one number, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNumbers(Vec<i64>);

impl LayerNumbers {
    /// The numbers, in the order of the config. Whether a tower has such layers is found when it is built.
    pub fn numbers(&self) -> &[i64] {
        &self.0
    }
}

impl Default for LayerNumbers {
    /// The last layer.
    fn default() -> Self {
        Self::from(-1)
    }
}

impl From<i64> for LayerNumbers {
    fn from(number: i64) -> Self {
        Self(vec![number])
    }
}

impl From<Vec<i64>> for LayerNumbers {
    fn from(numbers: Vec<i64>) -> Self {
        Self(numbers)
    }
}

impl fmt::Display for LayerNumbers {
    /// As in a config: `9`, or `[9, 10, 11]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => write!(f, "{only}"),
            numbers => write!(f, "{numbers:?}"),
        }
    }
}

impl Serialize for LayerNumbers {
    /// A number if there is one.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_i64(*only),
            numbers => numbers.serialize(serializer),
        }
    }
}

/// Written by hand: the errors of an untagged enum name no value.
impl<'de> Deserialize<'de> for LayerNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = LayerNumbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a layer, or a list of such numbers")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(LayerNumbers::from(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                let known = i64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self));
                known.map(LayerNumbers::from)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(sequence)).map(LayerNumbers)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// The layers of a transformer that are pooled. Blocks after the highest one are not loaded. The pooled outputs of
/// several layers are concatenated, in the order in which they are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenLayers {
    /// Which layers.
    pub numbers: LayerNumbers,
    /// Whether the tower's final norm is applied to the output of each.
    pub norm: bool,
}

impl Default for TakenLayers {
    /// The last layer, with the final norm.
    fn default() -> Self {
        Self { numbers: LayerNumbers::default(), norm: true }
    }
}

/// The layers of a tower that are pooled, where the config asks for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// From 1, at least one, each once, in the order of the config.
    pub layers: Vec<usize>,
    /// Number of layers of the whole tower.
    pub of: usize,
    /// Whether the final norm is applied.
    pub norm: bool,
}

impl Taken {
    /// The layer that the tower ends with.
    pub fn last(&self) -> usize {
        self.layers.iter().copied().max().unwrap_or(self.of)
    }

    /// Whether poolers see what they were trained for.
    pub fn is_whole(&self) -> bool {
        self.norm && self.layers == [self.of]
    }

    /// The layers, if there are several.
    pub fn several(&self) -> Vec<usize> {
        if self.layers.len() > 1 { self.layers.clone() } else { Vec::new() }
    }

    /// Says which layers are taken.
    pub fn describe(&self) -> String {
        let norm = if self.norm { "" } else { ", without the final norm" };
        match self.layers.as_slice() {
            [only] => format!("layer {only} of {}{norm}", self.of),
            layers => {
                let numbers = layers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                format!("layers {numbers} of {}, concatenated{norm}", self.of)
            }
        }
    }
}

/// The pooled outputs of the layers of one forward pass, collected while the blocks run.
pub(crate) struct LayerTaps<'a> {
    /// From 1; empty if only the output of the tower is pooled.
    layers: &'a [usize],
    /// The layer that the tower ends with.
    last: usize,
    /// Number of blocks that ran.
    seen: usize,
    /// The pooled output of each layer before the last that is among `layers`, with its number.
    pooled: Vec<(usize, Tensor<2>)>,
}

impl<'a> LayerTaps<'a> {
    pub fn new(layers: &'a [usize]) -> Self {
        let last = layers.iter().copied().max().unwrap_or_default();
        Self { layers, last, seen: 0, pooled: Vec::new() }
    }

    /// Goes on after the first `blocks` blocks, none of which is wanted but the last. `pool`: as for
    /// [`LayerTaps::after_block`], of that one.
    pub fn after_blocks(&mut self, blocks: usize, pool: impl FnOnce() -> Tensor<2>) {
        if let Some(before) = blocks.checked_sub(1) {
            self.seen = before;
            self.after_block(pool);
        }
    }

    /// Keeps what `pool` makes of the output of the block that just ran, if it is wanted. The output of the last block
    /// is that of the tower, and comes to [`LayerTaps::join`].
    pub fn after_block(&mut self, pool: impl FnOnce() -> Tensor<2>) {
        self.seen += 1;
        if self.seen != self.last && self.layers.contains(&self.seen) {
            self.pooled.push((self.seen, pool()));
        }
    }

    /// The pooled outputs side by side, `[batch, layers * pooled width]`. `last`: that of the tower's output.
    pub fn join(mut self, last: Tensor<2>) -> Tensor<2> {
        if self.layers.is_empty() {
            return last;
        }
        self.pooled.push((self.last, last));
        let of_layer = |layer: &usize| self.pooled.iter().find(|(number, _)| number == layer);
        let in_order = self.layers.iter().filter_map(of_layer).map(|(_, pooled)| pooled.clone());
        Tensor::cat(in_order.collect(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_or_a_list() {
        let read = |json: &str| serde_json::from_str::<LayerNumbers>(json).map_err(|error| error.to_string());
        for (json, written) in [("-1", "-1"), ("[9,-2,1]", "[9,-2,1]"), ("[3]", "3"), ("[]", "[]")] {
            assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), written);
        }
        assert_eq!((read("[3]"), read("-1")), (read("3"), Ok(LayerNumbers::default())));
        assert_eq!(read("[9, 10]").unwrap().to_string(), "[9, 10]");
        for (json, found) in [
            ("\"last\"", "invalid type: string \"last\", expected the number of a layer, or a list"),
            ("2.5", "floating point `2.5`, expected the number of a layer"),
            ("[1, \"2\"]", "invalid type: string \"2\", expected i64"),
            ("18446744073709551615", "integer `18446744073709551615`, expected the number of a layer"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn taps_in_the_order_of_the_list() {
        let device = burn::tensor::Device::flex();
        let value = |value: f32| Tensor::<2>::from_data([[value]], &device);
        let run = |layers: &[usize], blocks: usize| {
            let mut taps = LayerTaps::new(layers);
            (1..=blocks).for_each(|block| taps.after_block(|| value(block as f32)));
            taps.join(value(-1.0)).into_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(run(&[], 2), [-1.0]);
        assert_eq!(run(&[3, 1], 3), [-1.0, 1.0]);
        assert_eq!(run(&[1, 2, 4], 4), [1.0, 2.0, -1.0]);
    }
}
