/* Names of what is qprd's in QuPath, as in qprd/predictions.py; a test compares the two. */

import groovy.transform.Field

@Field static final String OWN = 'qprd'
@Field static final String REVIEW = 'Review'
@Field static final String OLD_TILE = 'qprd tile'
@Field static final String FAULT = 'qprd: fault'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_PROBABILITY = 'qprd: probability'
@Field static final String OWN_MEAN_SCORE = 'qprd: mean score'
@Field static final String OWN_MAX_SCORE = 'qprd: max score'
@Field static final String OWN_MEAN_PROBABILITY = 'qprd: mean probability'
@Field static final String OWN_AREA = 'qprd: area um^2'
@Field static final String OWN_NUMBER = 'qprd: number'
@Field static final String OWN_RANK = 'qprd: review rank'
@Field static final String OWN_SLIDE_SCORE = 'qprd: slide score'
@Field static final String OWN_SLIDE_PROBABILITY = 'qprd: slide probability'
@Field static final String OWN_BUNDLE = 'qprd: bundle'
@Field static final String OWN_THRESHOLD = 'qprd: threshold'
@Field static final String OWN_PROBABILITY_THRESHOLD = 'qprd: probability threshold'
@Field static final String OWN_THRESHOLD_SET_IN = 'qprd: threshold set in'
@Field static final String CONTOUR_CLASS = 'Tumor: qprd'
@Field static final List CONTOUR_COLOR = [255, 140, 0]
@Field static final int TILE_COLOR = 0x01ffffff
@Field static final long OWN_ID = 0x71707264L
