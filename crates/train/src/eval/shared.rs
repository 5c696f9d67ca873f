//! Several ranks encode what one of them evaluates: the first asks, and each encodes its share.
//!
//! The first rank decides what runs, measures and logs. The others [serve](Together::serve) until it dismisses them. So
//! an evaluation that the first rank skips, or a signal stops, leaves all ranks at the same exchange.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use dualenc_data::{ContentId, ImageProcessor, ImageRef, Skipped};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::eval::encoder::{Embeddings, Encoder, Helpers, ImageRows, ImagesFound};
use crate::features::cut_texts::{CutCounts, CutTexts};
use crate::features::image_index::ImageList;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::gathered::of_all;

/// What the first rank asks of all.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Request {
    /// The images of an evaluation.
    Images {
        evaluation: String,
        rows: ImageRows,
        batch_size: usize,
    },
    Texts {
        texts: Vec<String>,
        batch_size: usize,
    },
    /// Nothing more.
    Nothing,
}

/// What a rank answers, besides embeddings.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Images {
        usable: Vec<usize>,
        contents: Vec<ContentId>,
        bad: Vec<Skipped>,
    },
    Texts {
        cut: CutCounts,
    },
    /// A signal stopped it.
    Stopped {
        signal: usize,
    },
    /// It fails, and ends the run.
    Failed,
}

/// Ranks that encode together, as one of them sees them.
pub(crate) struct Together<'a> {
    ranks: &'a dyn Exchange,
    shares: &'a ImageShares,
}

/// The images of each evaluation that this rank encodes: always the same lists, so that what is found out about their
/// images is kept.
#[derive(Default)]
pub(crate) struct ImageShares(Mutex<HashMap<String, Arc<ShareOfImages>>>);

impl<'a> Together<'a> {
    /// `None`: there is no other rank.
    pub fn of(ranks: &'a dyn Exchange, shares: &'a ImageShares) -> Option<Self> {
        (!ranks.is_alone()).then_some(Self { ranks, shares })
    }

    /// Lets the other ranks, which [serve](Together::serve), go on.
    ///
    /// # Errors
    /// [`TrainError::OfRank`] when another rank has failed.
    pub fn dismiss(&self) -> Result<(), TrainError> {
        self.ask(Request::Nothing)
    }

    /// Encodes what the first rank asks for, until it dismisses this one. `images`: those of an evaluation. `encode`
    /// runs a piece of work with the encoder of this rank, which is made only if there is work.
    ///
    /// # Errors
    /// Those of encoding; [`TrainError::OfRank`] when another rank fails.
    pub fn serve(
        &self,
        processor: &Arc<ImageProcessor>,
        images: impl Fn(&str) -> Option<Arc<dyn ImageList>>,
        encode: impl Fn(&mut dyn FnMut(&Encoder<'_>) -> Result<(), TrainError>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let mut request = self.asked()?;
        if matches!(request, Request::Nothing) {
            return Ok(());
        }
        encode(&mut |encoder| {
            loop {
                let answered = match &request {
                    Request::Nothing => return Ok(()),
                    Request::Images { evaluation: name, rows, batch_size } => {
                        let unknown = || TrainError::Internal(format!("this rank has no evaluation `{name}`"));
                        let all = images(name).ok_or_else(unknown)?;
                        let encoder = encoder.with_batch_size(*batch_size);
                        self.encode_images(&encoder, name, &all, processor, *rows, &mut |_| {}).map(drop)
                    }
                    Request::Texts { texts, batch_size } => {
                        let encoder = encoder.with_batch_size(*batch_size);
                        self.encode_texts(&encoder, texts, &mut |_| {}).map(drop)
                    }
                };
                match answered {
                    // The first rank is stopped too, and dismisses this one.
                    Ok(()) | Err(TrainError::Stopped { .. }) => request = self.asked()?,
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn ask(&self, request: Request) -> Result<(), TrainError> {
        of_all(self.ranks, request, Patience::AsLongAsItTakes).map(drop)
    }

    fn asked(&self) -> Result<Request, TrainError> {
        let all = of_all(self.ranks, Request::Nothing, Patience::AsLongAsItTakes)?;
        all.into_iter().next().ok_or_else(|| TrainError::Internal("there is no first rank".to_owned()))
    }

    /// The images of all ranks, each of which encodes its share.
    fn encode_images(
        &self,
        encoder: &Encoder<'_>,
        name: &str,
        all: &Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        rows: ImageRows,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<ImagesFound, TrainError> {
        let own = self.shares.of(name, all, self.ranks);
        let (first, total) = (own.images.start, all.num_images());
        let found = encoder.images_with_contents(own, processor, rows, |done| {
            on_progress(total.min(done * self.ranks.ranks()));
        });
        let (answer, values) = match found {
            Ok((usable, embeddings, contents, bad)) => {
                let usable = usable.into_iter().map(|image| first + image).collect();
                let bad = bad.into_iter().map(|bad| Skipped { image: first + bad.image, ..bad }).collect();
                (Ok(Answer::Images { usable, contents, bad }), embeddings.features)
            }
            Err(error) => (Err(error), Vec::new()),
        };
        let (answers, features) = self.answers_of_all(answer, values)?;
        let (mut usable, mut contents, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            let Answer::Images { usable: more_usable, contents: more_contents, bad: more_bad } = answer else {
                return Err(TrainError::Internal("a rank has answered another question".to_owned()));
            };
            usable.extend(more_usable);
            contents.extend(more_contents);
            bad.extend(more_bad);
        }
        Ok((usable, Embeddings { dim: encoder.row_width(rows), features }, contents, bad))
    }

    /// The texts of all ranks, each of which encodes its share.
    fn encode_texts(
        &self,
        encoder: &Encoder<'_>,
        all: &[String],
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        let own = &all[share(all.len(), self.ranks)];
        // The first rank counts what all of them cut.
        let cut = CutTexts::default();
        let own_encoder = Encoder { cut: cut.clone(), ..*encoder };
        let found = own_encoder.own_texts(own, |done| on_progress(all.len().min(done * self.ranks.ranks())));
        let (answer, values) = match found {
            Ok(embeddings) => (Ok(Answer::Texts { cut: cut.take() }), embeddings.features),
            Err(error) => (Err(error), Vec::new()),
        };
        let (answers, features) = self.answers_of_all(answer, values)?;
        for answer in answers {
            if let Answer::Texts { cut } = answer {
                encoder.cut.add(cut);
            }
        }
        Ok(Embeddings { dim: encoder.model.embed_dim(), features })
    }

    /// The answers and values of all ranks, in order. An error of this rank is returned when the others know.
    fn answers_of_all(
        &self,
        own: Result<Answer, TrainError>,
        values: Vec<f32>,
    ) -> Result<(Vec<Answer>, Vec<f32>), TrainError> {
        let (answer, error) = match own {
            Ok(answer) => (answer, None),
            Err(TrainError::Stopped { signal }) => (Answer::Stopped { signal }, Some(TrainError::Stopped { signal })),
            Err(error) => (Answer::Failed, Some(error)),
        };
        // All encode equally much.
        let answers = of_all(self.ranks, answer, Patience::Deadline)?;
        if let Some(error) = error {
            return Err(error);
        }
        if answers.iter().any(|answer| matches!(answer, Answer::Failed)) {
            // That rank ends all with its error, which the next exchange returns.
            let unknown = || TrainError::Internal("a rank has failed without an error".to_owned());
            return Err(self.asked().err().unwrap_or_else(unknown));
        }
        for answer in &answers {
            if let Answer::Stopped { signal } = answer {
                return Err(TrainError::Stopped { signal: *signal });
            }
        }
        let values = self.ranks.gather_values(values)?;
        Ok((answers, values.iter().flat_map(|values| values.iter().copied()).collect()))
    }
}

impl Helpers for Together<'_> {
    fn images(
        &self,
        encoder: &Encoder<'_>,
        name: &str,
        images: Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        rows: ImageRows,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<ImagesFound, TrainError> {
        self.ask(Request::Images { evaluation: name.to_owned(), rows, batch_size: encoder.batch_size })?;
        self.encode_images(encoder, name, &images, processor, rows, on_progress)
    }

    fn texts(
        &self,
        encoder: &Encoder<'_>,
        texts: Vec<String>,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        self.ask(Request::Texts { texts: texts.clone(), batch_size: encoder.batch_size })?;
        self.encode_texts(encoder, &texts, on_progress)
    }
}

/// The numbers of `count` things that this rank encodes.
fn share(count: usize, ranks: &dyn Exchange) -> Range<usize> {
    let (rank, ranks) = (ranks.rank(), ranks.ranks());
    rank * count / ranks..(rank + 1) * count / ranks
}

/// Some images of a list.
struct ShareOfImages {
    all: Arc<dyn ImageList>,
    images: Range<usize>,
}

impl ImageShares {
    fn of(&self, name: &str, all: &Arc<dyn ImageList>, ranks: &dyn Exchange) -> Arc<ShareOfImages> {
        let new = || {
            let images = share(all.num_images(), ranks);
            Arc::new(ShareOfImages { all: Arc::clone(all), images })
        };
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shares.entry(name.to_owned()).or_insert_with(new))
    }
}

impl ImageList for ShareOfImages {
    fn num_images(&self) -> usize {
        self.images.len()
    }

    fn image(&self, image: usize) -> ImageRef {
        self.all.image(self.images.start + image)
    }
}
